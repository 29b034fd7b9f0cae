use super::*;

/// All variables of the text, as `NAME=value` with line breaks shown, or what is wrong with it.
fn said(text: &str) -> Vec<String> {
    let mut variables = Variables::default();
    let outside = |name: &str| (name == "OUTSIDE").then(|| Zeroizing::new("shell".to_owned()));
    match read(text, &mut variables, &outside) {
        Ok(()) => variables.values.iter().map(|(name, value)| format!("{name}={}", value.escape_debug())).collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn dollars_quotes_and_ampersands_are_what_compose_makes_of_them() {
    assert_eq!(said("A=k3y$$with$$dollars"), ["A=k3y$with$dollars"]);
    assert_eq!(said("A=A & B"), ["A=A & B"]);
    assert_eq!(said("A='k$$x'\nB=\"k\\$x\"\nC=k$x"), ["A=k$$x", "B=k$x", "C=k"]);
    assert_eq!(said("A=p#a # comment\nB=\"p # a\" # comment\n# C=1\nD="), ["A=p#a", "B=p # a", "D="]);
    assert_eq!(
        said("A='it\\'s'\nB=\"say \\\"hi\\\"\"\nC='a\\nb'\nD=\"a\\nb\""),
        ["A=it\\'s", "B=say \\\"hi\\\"", "C=a\\\\nb", "D=a\\nb"]
    );
}

#[test]
fn what_a_shell_would_read_is_read_as_well() {
    assert_eq!(
        said("export A=1\nexport\tB = 2\nC: 3\nexport OUTSIDE\nINHERITED_FROM_NOBODY\n"),
        ["A=1", "B=2", "C=3", "OUTSIDE=shell"]
    );
    assert_eq!(said("\u{feff}A=1\r\nB='2'\r\nC=\"3\r\n4\"\r\n"), ["A=1", "B=2", "C=3\\r\\n4"]);
    assert_eq!(said("A=\"-----BEGIN\nabc=\n-----END\"\nB=1"), ["A=-----BEGIN\\nabc=\\n-----END", "B=1"]);
    assert_eq!(said("A=1\nA=2\nB=$A"), ["A=2", "B=2"]);
    assert_eq!(said("A=${OUTSIDE}\nOUTSIDE=file\nB=${OUTSIDE}"), ["A=shell", "B=shell", "OUTSIDE=file"]);
}

#[test]
fn references_have_defaults_and_alternatives() {
    let text =
        "E=\nS=set\nA=${E:-d}\nB=${E-d}\nC=${N-d}\nD=${S:+alt}x\nF=${E:+alt}x\nG=${N:-${S}y}z\nH=${S}-${N:-a}-${S:-b}";
    assert_eq!(said(text), ["A=d", "B=", "C=d", "D=altx", "E=", "F=x", "G=setyz", "H=set-a-set", "S=set"]);
    assert_eq!(said("A=${N:?no}"), ["line 1: the variable N must have a value and has none"]);
    assert_eq!(said("A=$1 $ $-"), ["A=$1 $ $-"]);
}

#[test]
fn escapes_within_double_quotes_are_go_s() {
    assert_eq!(said(r#"A="\0123\012\0\c\x41\u0041\0777\0189""#), [r"A=S\\12\\\\c\\x41\\u0041\\777\\189"]);
}

#[test]
fn what_compose_refuses_is_refused_with_its_line_and_without_its_value() {
    let name = "no `=` follows what should be a variable's name: begin a comment with #, and put a value of several lines in quotes";
    assert_eq!(said("A=1\nhunter2!\n"), [format!("line 2: {name}")]);
    assert_eq!(said("A=1\n\nTWO WORDS=hunter2\n"), ["line 3: there is a space in a variable's name: write NAME=value"]);
    assert_eq!(said("A=1\nB='hunter2\nC=3"), ["line 2: a quote is opened and not closed"]);
    for wrong in ["A=${", "A=${}", "A=${1}", "A=${A", "A=${A:-x", "A=${A!}"] {
        assert!(said(wrong)[0].contains("is no reference"), "{wrong}");
    }
}

#[test]
fn a_hostile_file_ends_in_an_error() {
    assert!(said(&format!("A={}", "${A:-".repeat(100_000)))[0].contains("no reference"));
    let nested = format!("A={}{}", "${A:-".repeat(1000), "}".repeat(1000));
    assert_eq!(said(&nested), ["line 1: references to variables are nested too deeply"]);
    let mut doubling = "A0=0123456789\n".to_owned();
    for index in 1..40 {
        doubling.push_str(&format!("A{index}=${{A{0}}}${{A{0}}}\n", index - 1));
    }
    assert!(said(&doubling)[0].contains("8 MiB"));
}
