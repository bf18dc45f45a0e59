use super::*;

fn read(prompt: &str, brackets: Brackets) -> Vec<(String, f64)> {
    segments(prompt, brackets).into_iter().map(|segment| (segment.text, segment.weight)).collect()
}

fn assert_read(prompt: &str, expected: &[(&str, f64)]) {
    let expected: Vec<_> = expected.iter().map(|&(text, weight)| (text.to_owned(), weight)).collect();
    assert_eq!(read(prompt, Brackets::Round), expected, "{prompt:?}");
}

#[test]
fn weights_are_pythons_products() {
    assert_read("", &[]);
    assert_read("a (b:1.3) c", &[("a ", 1.0), ("b", 1.3), (" c", 1.0)]);
    assert_read("((a))", &[("a", 1.1 * 1.1)]);
    assert_read("(a (b:1.2):1.1)", &[("a ", 1.1), ("b", 1.2)]);
    assert_read("((a:2):3)", &[("a", 2.0)]);
    assert_read("(a:1.2)(b)", &[("a", 1.2), ("b", 1.1)]);
}

#[test]
fn only_a_number_after_the_last_colon_is_a_weight() {
    assert_read("(a:b)", &[("a:b", 1.1)]);
    assert_read("(a:1:2)", &[("a:1", 2.0)]);
    assert_read("(:2)", &[(":2", 1.1)]);
    assert_read("(a:2 )", &[("a", 2.0)]);
    assert_read("((a):2)", &[("a", 2.0 * 1.1)]);
    assert_read("(a:2(b))", &[("a:2", 1.1), ("b", 1.1 * 1.1)]);
    assert_read("a:2", &[("a:2", 1.0)]);
}

#[test]
fn unbalanced_brackets_are_text() {
    assert_read("((a", &[("((a", 1.0)]);
    assert_read("((a)", &[("(a", 1.1)]);
    assert_read("a (b (c:2)", &[("a ", 1.0), ("b ", 2.0), ("(c", 2.0)]);
    assert_read("a) (b:2) c", &[("a) (b:2) c", 1.0)]);
    assert_read("a) ((b:2) c", &[("a) (", 1.0), ("b", 2.0), (" c", 1.0)]);
    assert_read(")(", &[(")(", 1.0)]);
    assert_read("()", &[]);
}

#[test]
fn backslashes_make_brackets_text() {
    assert_read(r"\(a:2\)", &[("(a:2)", 1.0)]);
    assert_read(r"(\(a\):2)", &[("(a)", 2.0)]);
    assert_read("\0\u{1}\0\u{2}", &[(")(", 1.0)]);
    assert_eq!(read(r"(\(a:2\))", Brackets::Plain), [("((a:2))".to_owned(), 1.0)]);
    assert_read(r"\[", &[(r"\[", 1.0)]);
}

#[test]
fn square_brackets_divide_and_may_cross_round_ones() {
    let read = |prompt| read(prompt, Brackets::RoundAndSquare);
    let text = str::to_owned;
    assert_eq!(read("[a]b"), [(text("a"), 1.0 / 1.1), (text("b"), 1.0)]);
    assert_eq!(read("a] [b"), [(text("a] "), 1.0), (text("b"), 1.0 / 1.1)]);
    assert_eq!(
        read("(a [b:2) c] d"),
        [(text("a "), 2.0), (text("b"), 2.0 / 1.1), (text(" c"), 1.0 / 1.1), (text(" d"), 1.0)]
    );
    assert_eq!(read(r"\[a\]"), [(text("[a]"), 1.0)]);
    assert_eq!(read("[]"), []);
}
