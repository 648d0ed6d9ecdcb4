//! The doors: axum routes, wire types, and nothing that decides.
