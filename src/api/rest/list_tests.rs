use super::*;

const SORTS: [(&str, u8); 2] = [("-updated_at", 1), ("title", 2)];

fn query(limit: Option<usize>, cursor: Option<&str>, sort: Option<&str>) -> ListQuery {
    ListQuery { limit, cursor: cursor.map(str::to_owned), sort: sort.map(str::to_owned) }
}

#[test]
fn a_page_leads_to_the_next() {
    let first = query(None, None, None);
    let ask = first.ask(&SORTS).unwrap();
    assert_eq!((ask.limit, ask.sort, ask.descending, ask.after), (50, 1, true, None));
    let next = Some(Place { key: "2026".into(), id: "a".into() });
    let list = List::of(Page { items: vec![1, 2], next: next.clone(), total: 9 }, &first, &SORTS, |item| item);
    assert_eq!((list.items, list.total), (vec![1, 2], 9));
    let cursor = list.next_cursor.unwrap();
    assert_eq!(query(Some(1), Some(&cursor), None).ask(&SORTS).unwrap().after, next);
    let other = query(None, Some(&cursor), Some("title")).ask(&SORTS).unwrap_err();
    assert_eq!(other.field.as_deref(), Some("cursor"));
}

#[test]
fn what_cannot_be_asked_is_named() {
    for (query, field) in [
        (query(Some(0), None, None), "limit"),
        (query(Some(201), None, None), "limit"),
        (query(None, Some("!"), None), "cursor"),
        (query(None, Some("e30"), None), "cursor"),
        (query(None, None, Some("--title")), "sort"),
        (query(None, None, Some("colour")), "sort"),
        (query(None, None, Some("")), "sort"),
    ] {
        assert_eq!(query.ask(&SORTS).unwrap_err().field.as_deref(), Some(field), "{query:?}");
    }
    assert!(!query(None, None, Some("title")).ask(&SORTS).unwrap().descending);
    assert!(query(None, None, Some("-title")).ask(&SORTS).unwrap().descending);
}
