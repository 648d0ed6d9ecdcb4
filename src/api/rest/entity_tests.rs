use super::*;

#[test]
fn a_change_names_the_version_that_it_is_of() {
    let read = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_static(value));
        }
        IfMatch::read(&headers)
    };
    assert_eq!(read(&[]), IfMatch::Any);
    assert_eq!(read(&["*"]), IfMatch::Any);
    assert_eq!(read(&["\"3\", \"4\"", "\"9\""]), IfMatch::OneOf(vec![3, 4, 9]));
    assert_eq!(read(&["W/\"3\""]), IfMatch::OneOf(vec![]), "a weak tag never matches");
    assert!(read(&["\"3\""]).check(3).is_ok());
    assert_eq!(read(&["\"3\""]).check(4).unwrap_err().status, StatusCode::PRECONDITION_FAILED);
    assert!(read(&["nonsense"]).check(1).is_err());
}
