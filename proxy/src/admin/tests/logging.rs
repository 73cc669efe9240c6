//! `/logging`: what is shown, what may be changed.
use super::*;

#[test]
fn levels_are_shown_and_changed() {
    let view = Fake::new();
    let all = |level: &str| {
        let lines = logger::LOGGERS
            .iter()
            .map(|logger| format!("  {}: {level}\n", logger.name));
        format!("active loggers:\n{}\n", lines.collect::<String>())
    };
    check(&view, "POST /logging", 200, &all("warning"));
    check(&view, "POST /logging?level=debug", 200, &all("debug"));
    check(&view, "POST /logging?paths=&level=info", 200, &all("info"));
    assert!(
        ask(&view, "POST /logging?http=trace")
            .body
            .contains("  http: trace\n  http2: info\n")
    );
    assert!(
        ask(&view, "POST /logging?paths=http:off,admin:error")
            .body
            .contains("  admin: error\n")
    );
    assert_eq!(view.applied.lock().unwrap().len(), 4);
    for (query, reason) in [
        ("level=loud", "unknown logger level"),
        ("lua=info", "unknown logger name"),
        ("level=info&http=info", "invalid number of parameters"),
        ("http=info&admin=info", "invalid number of parameters"),
        ("paths=http", "empty logger name or empty logger level"),
    ] {
        let answer = ask(&view, &format!("POST /logging?{query}"));
        let begin = format!("error: {reason}\n\nusage: /logging?<name>=<level> (change single level)\n");
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.body.starts_with(&begin), "{query}: {}", answer.body);
    }
    assert_eq!(
        view.applied.lock().unwrap().len(),
        4,
        "a refused change changes nothing"
    );
}
