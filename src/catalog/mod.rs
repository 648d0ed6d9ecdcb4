//! Models on disk: what there is, where its files come from, and whether they are whole.
