use super::*;

const SHAPE: Shape = Shape {
    maps: &["Labels", "Data", "ExposedPorts", "Volumes"],
    lists: &["Entrypoint", "OnBuild", "RepoDigests"],
};

fn image() -> Value {
    let json = serde_json::json!({
        "RepoTags": ["a:1", "b:2"],
        "RepoDigests": [],
        "Comment": "",
        "Created": "2024-01-01T00:00:00Z",
        "Author": "me <x>",
        "Architecture": "arm64",
        "Variant": "v8",
        "Os": "linux",
        "Size": 187_450_000,
        "GraphDriver": {"Name": "overlay2", "Data": {"b": "1", "a": "2"}},
        "RootFS": {"Type": "layers", "Layers": ["sha256:11", "sha256:22"]},
        "Config": {
            "Env": ["PATH=/bin", "A=b c"],
            "Cmd": ["sh", "-c"],
            "Entrypoint": null,
            "Labels": {"zeta": "9", "alpha": "one", "org.x": "y"},
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "Volumes": null,
            "OnBuild": null,
        },
    });
    Value::from_json(&json, SHAPE)
}

fn render(template: &str) -> Result<String, TemplateError> {
    Template::parse(template)?.render(&image())
}

/// Templates and what `docker image inspect --format` of Docker 28.2.2 prints for an image as above.
#[rustfmt::skip]
const DOCKER: &[(&str, &str)] = &[
    ("{{.Os}}/{{.Architecture}}", "linux/arm64"),
    ("{{.RepoTags}}", "[a:1 b:2]"),
    ("{{.Config.Env}}", "[PATH=/bin A=b c]"),
    ("{{.Config.Labels}}", "map[alpha:one org.x:y zeta:9]"),
    ("{{.Config.Cmd}} {{.Config.Entrypoint}} {{len .Config.Entrypoint}}", "[sh -c] [] 0"),
    (r#"{{.Size}} {{printf "%d" .Size}} {{printf "%x" .Size}} {{printf "%12d|%-12d|%012d" .Size .Size .Size}}"#, "187450000 187450000 b2c4290    187450000|187450000   |000187450000"),
    ("{{range .RepoTags}}[{{.}}]{{end}}", "[a:1][b:2]"),
    ("{{range $i, $v := .RepoTags}}{{$i}}={{$v}};{{end}}", "0=a:1;1=b:2;"),
    ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "alpha=one org.x=y zeta=9 "),
    ("{{range $v := .RepoDigests}}{{$v}}{{else}}none{{end}}", "none"),
    ("{{range .Config.Volumes}}x{{else}}none{{end}}", "none"),
    ("{{if .Variant}}yes {{.Variant}}{{else}}no{{end}}", "yes v8"),
    (r#"{{if eq .Os "windows" "linux"}}a{{else if .Os}}b{{else}}c{{end}}"#, "a"),
    ("{{if and .Os (not .Comment) (or .Comment .Variant)}}t{{end}}", "t"),
    (r#"{{and .Os .Variant}} {{or .Comment .Os}} {{not .Os}} {{or .Comment ""}}|"#, "v8 linux false |"),
    ("{{with .RootFS}}{{.Type}} {{len .Layers}} {{$.Os}}{{end}}", "layers 2 linux"),
    ("{{with $x := .Comment}}{{$x}}{{else}}empty{{end}}", "empty"),
    (r#"{{index .Config.Labels "alpha"}}|{{index .Config.Labels "nope"}}|{{.Config.Labels.zeta}}|{{.Config.Labels.nope}}"#, "one||9|<no value>"),
    ("{{index .RepoTags 1}} {{index .RootFS.Layers 0}}", "b:2 sha256:11"),
    ("{{slice .Os 1 3}} {{slice .RepoTags 1}} {{slice .Os 2}}", "in [b:2] nux"),
    (r#"{{join .RepoTags ", "}} {{split .Os "n"}} {{upper .Os}} {{lower "ABC"}} {{title "hello wörld foo_bar a-b"}}"#, "a:1, b:2 [li ux] LINUX abc Hello Wörld Foo_bar A-B"),
    ("{{pad .Os 2 3}}|{{truncate .Os 3}}|{{truncate .Os 30}}", "  linux   |lin|linux"),
    (r#"{{.Os | upper | printf "%s-%s" "x"}}"#, "x-LINUX"),
    (r#"{{printf "%q %v %s %T" .Os .RepoTags .RepoTags .Os}}"#, r#""linux" [a:1 b:2] [a:1 b:2] string"#),
    (r#"{{printf "%q" .RepoTags}}"#, r#"["a:1" "b:2"]"#),
    (r#"{{printf "%d" .Os}} {{printf "%s" .Size}} {{printf "%z" 1}} {{printf "%s"}} {{printf "%s" 1 2}} {{printf "%!"}} {{printf "x%"}}"#, "%!d(string=linux) %!s(int=187450000) %!z(int=1) %!s(MISSING) %!s(int=1)%!(EXTRA int=2) %!!(MISSING) x%!(NOVERB)"),
    (r#"{{printf "%5s|%-5s|%.2s|%5.1f|%e|%g" "ab" "ab" "abcdef" 3.14159 1234.5 1e21}}"#, "   ab|ab   |ab|  3.1|1.234500e+03|1e+21"),
    (r#"{{printf "%t %v %c %U %b %o %#x %X" true false 65 0x1F600 5 8 255 "hi"}}"#, "true false A U+1F600 101 10 0xff 6869"),
    (r#"{{printf "%*d|%[2]s %[1]s" 5 42 }}"#, "   42|%!s(int=42) %!s(int=5)"),
    (r#"{{printf "%[2]s %[1]s" "a" "b"}}"#, "b a"),
    (r#"{{printf "%+d % d %+v" 5 5 .RepoTags}}"#, "+5  5 [a:1 b:2]"),
    (r#"{{print 1 2 "a" "b" 3 nil}}"#, "1 2ab3 <nil>"),
    (r#"{{print nil}} {{println "a" 1}}|"#, "<nil> a 1
|"),
    (r#"{{print "a" "b" 1 2 true false "c"}}"#, "ab1 2 true falsec"),
    (r#"{{len "héllo"}} {{len .RepoTags}} {{len .Config.Labels}}"#, "6 2 3"),
    ("{{$x := 5}}{{$x}}{{$x = 6}}{{$x}}{{range .RepoTags}}{{$x = .}}{{end}}{{$x}}", "56b:2"),
    ("{{- .Os -}}  x  {{- /* c */ -}}  y", "linuxxy"),
    ("a {{- 3}} {{3 -}} b", "a3 3b"),
    ("{{/* comment */}}z", "z"),
    (r#"{{"a\tb\"\u00e9\x41\101"}}{{`raw\t"x"`}}{{'a'}}{{'\n'}}"#, r#"a	b"éAAraw\t"x"9710"#),
    ("{{1}} {{-1}} {{1.5}} {{1e3}} {{0x10}} {{1_000}} {{0b11}} {{0o17}} {{.5}} {{1e100}} {{1.0}} {{100000000.5}} {{1e20}} {{1e21}} {{0.00001}}", "1 -1 1.5 1000 16 1000 3 15 0.5 1e+100 1 1.000000005e+08 1e+20 1e+21 1e-05"),
    ("{{true}} {{false}}", "true false"),
    ("{{(index .RepoTags 0) | upper}} {{(.RootFS).Type}} {{(slice .RepoTags 0 1)}}", "A:1 layers [a:1]"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ("{{range $i := 2}}{{$i}}{{end}}", "01"),
    (r#"{{range .RepoTags}}{{if eq . "a:1"}}{{continue}}{{end}}{{.}}{{break}}{{end}}"#, "b:2"),
    ("{{.GraphDriver.Name}} {{.GraphDriver.Data}} {{.GraphDriver.Data.a}}", "overlay2 map[a:2 b:1] 2"),
    ("{{with .Config}}{{with .Labels}}{{.alpha}}{{end}}{{end}}", "one"),
    ("{{ range $k, $v := .Config.ExposedPorts }}{{ println $k }}{{ end }}", "443/tcp
80/tcp
"),
    ("{{.Config.ExposedPorts}}", "map[443/tcp:{} 80/tcp:{}]"),
    ("{{.RootFS.Layers | len}}", "2"),
    ("{{with .Comment}}a{{else with .Os}}b{{.}}{{end}}", "blinux"),
    (r#"{{eq .Os "linux" | not}}"#, "false"),
    (r#"{{printf "%6.2f|%06d|%x|% x|%-4d|" 3.14159 -42 "hello" "hi" 7}}"#, "  3.14|-00042|68656c6c6f|68 69|7   |"),
    (r#"{{printf "%v %v" 1.0 1e6}} {{printf "%5t|%08.3f|%+.2e" true 3.14159 12345.678}}"#, "1 1e+06  true|0003.142|+1.23e+04"),
    (r#"{{printf "%s" nil}} {{printf "%v" nil}} {{printf "%d" nil}}"#, "%!s(<nil>) <nil> %!d(<nil>)"),
    (r#"{{printf "%d" .RepoTags}} {{printf "%5s" .RepoTags}} {{printf "%x" .RepoTags}}"#, "[%!d(string=a:1) %!d(string=b:2)] [  a:1   b:2] [613a31 623a32]"),
    ("{{not nil}}", "true"),
    ("{{eq nil nil}}", "true"),
    ("{{eq .Os nil}}", "false"),
    ("{{ .Config.Env | json | len }}", "21"),
    (r#"{{"a"}}{{" b"}}{{ `c` -}}   d"#, "a bcd"),
    ("{{if not .Comment -}} nothing {{- end}}", "nothing"),
    (r#"{{printf "%v" .Config.Labels}} {{printf "%s" .Config.Labels}} {{printf "%q" .Config.Labels}}"#, r#"map[alpha:one org.x:y zeta:9] map[alpha:one org.x:y zeta:9] map["alpha":"one" "org.x":"y" "zeta":"9"]"#),
    (r#"{{index "abc" 1}} {{index .Config.Env 1 | printf "%s!"}}"#, "98 A=b c!"),
    (r#"{{$a := "1"}}{{if true}}{{$a := "2"}}{{$a}}{{end}}{{$a}}"#, "21"),
    ("{{if $a := .Os}}{{$a}}{{end}}", "linux"),
    ("{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$e}}{{end}}", "PATH=/bin, A=b c"),
    (r#"{{printf "%s" (join .RepoTags "+")}}"#, "a:1+b:2"),
    (r#"{{ "quoted}}" }}"#, "quoted}}"),
    ("{{ .Os | }}", "linux"),
    (r#"{{.Os}}{{"\n"}}{{.Size}}"#, "linux
187450000"),
    (r"\t{{.Os}}\n", r"\tlinux\n"),
    (r#"{{printf "%c%c" 0x4E16 'x'}} {{printf "%q" 'x'}} {{printf "%U" 'x'}} {{printf "%#U" 'x'}} {{printf "%#q" "a"}} {{printf "%+q" "é"}}"#, r#"世x 'x' U+0078 U+0078 'x' `a` "\u00e9""#),
    (r#"{{printf "%03s|%-03d|%+s" "a" 5 "b"}}"#, "00a|5  |b"),
    (r#"{{printf "%.3v|%10v|%.3d" "abcdef" true 5}}"#, "abc|      true|005"),
    ("{{or .Os .Foo}}", "linux"),
    ("{{json .RootFS}}", r#"{"Type":"layers","Layers":["sha256:11","sha256:22"]}"#),
    (r#"{{html "<a href='x'>&\"</a>"}} {{urlquery "a b&c"}}"#, "&lt;a href=&#39;x&#39;&gt;&amp;&#34;&lt;/a&gt; a+b%26c"),
    (r#"{{printf "%v %G %.3g" 12345678.9 1e-10 1234.5}}"#, "1.23456789e+07 1E-10 1.23e+03"),
    (r#"{{printf "%#v %#v" "a" 1}}"#, r#""a" 1"#),
];

#[test]
fn templates_print_what_docker_prints() {
    let mut wrong = Vec::new();
    for (template, expected) in DOCKER {
        match render(template) {
            Ok(text) if text == *expected => {}
            other => wrong.push(format!("{template}\n  expected {expected:?}\n  got      {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Templates that Docker 28.2.2 refuses to run, and what is wrong with them.
#[rustfmt::skip]
const FAILS: &[(&str, &str)] = &[
    ("{{index .RepoTags 5}}", "error calling index: index out of range: 5"),
    ("{{index .RepoTags -1}}", "error calling index: index out of range: -1"),
    (r#"{{index .RepoTags "a"}}"#, "error calling index: cannot index slice/array with type string"),
    ("{{index .Config.Labels 1}}", "error calling index: value has type int; should be string"),
    ("{{index nil 1}}", "error calling index: index of untyped nil"),
    ("{{slice .Os 1 99}}", "error calling slice: index out of range: 99"),
    ("{{slice .Os 2 1}}", "error calling slice: invalid slice index: 2 > 1"),
    ("{{slice .Os 1 2 3}}", "error calling slice: too many slice indexes: 3"),
    ("{{truncate .Os -1}}", "error calling truncate: cannot truncate to -1"),
    ("{{pad .Os 0 99999999}}", "error calling pad: cannot pad by 99999999"),
    ("{{nil}}", "nil is not a command"),
    ("{{range nil}}x{{end}}", "nil is not a command"),
    ("{{len 3}}", "error calling len: len of type int"),
    ("{{eq 1 1.0}}", "error calling eq: incompatible types for comparison"),
    (r#"{{eq "a" 1}}"#, "error calling eq: incompatible types for comparison"),
    ("{{lt 1 1.5}}", "error calling lt: incompatible types for comparison"),
    ("{{lt true false}}", "error calling lt: invalid type for comparison"),
    ("{{eq .RepoTags .RepoTags}}", "error calling eq: non-comparable type []string"),
    ("{{eq 1}}", "error calling eq: missing argument for comparison"),
    ("{{ne 1 2 3}}", "wrong number of args for ne: want 2 got 3"),
    ("{{not 1 2}}", "wrong number of args for not: want 1 got 2"),
    ("{{and}}", "wrong number of args for and: want at least 1 got 0"),
    ("{{upper}}", "wrong number of args for upper: want 1 got 0"),
    ("{{lower 5}}", "error calling lower: wrong type for value; expected string; got int"),
    (r#"{{join .Os ","}}"#, "error calling join: wrong type for value; expected []string; got string"),
    (r#"{{.Os "x"}}"#, "Os is not a method but has arguments"),
    ("{{3 4}}", "can't give argument to non-function"),
    ("{{ $x := 1 2 }}", "can't give argument to non-function"),
    ("{{range .Os}}{{.}}{{end}}", "range can't iterate over linux"),
    ("{{.Foo}}", "can't evaluate field Foo"),
    ("{{.Config.Foo}}", "can't evaluate field Foo"),
    ("{{if and .Config .Config.Foo}}x{{end}}", "can't evaluate field Foo"),
    ("{{.Os.Foo}}", "can't evaluate field Foo in type string"),
    ("{{.RepoTags.Foo}}", "can't evaluate field Foo in type []string"),
    ("{{.Config.Labels.nope.x}}", "nil pointer evaluating x"),
];

/// Templates that cannot be read.
#[rustfmt::skip]
const MALFORMED: &[(&str, &str)] = &[
    ("{{$x}}", "undefined variable `$x`"),
    ("{{$x = 1}}", "undefined variable `$x`"),
    ("{{if true}}{{$x := 1}}{{end}}{{$x}}", "undefined variable `$x`"),
    ("{{foo .Os}}", "function `foo` is not defined"),
    ("{{.Os", "unclosed action"),
    ("{{", "unclosed action"),
    ("{{/* x", "unclosed comment"),
    ("{{/* x */ y}}", "comment ends before closing delimiter"),
    ("{{if .Os}}x", "a block has no {{end}}"),
    ("{{if .Os}}x{{else}}y", "a block has no {{end}}"),
    ("{{if .Os}}x{{else}}y{{else}}{{end}}", "expected {{end}}; found {{else}}"),
    ("{{end}}", "unexpected {{end}}"),
    ("{{else}}", "unexpected {{else}}"),
    ("{{break}}", "{{break}} outside {{range}}"),
    ("{{if}}x{{end}}", "missing value for if"),
    ("{{}}", "missing value for command"),
    ("{{()}}", "missing value for parenthesized pipeline"),
    ("{{if $a, $b := .}}{{end}}", "too many declarations in if"),
    (r#"{{"x" | "y"}}"#, "non executable command in pipeline stage 2"),
    (r#"{{ "unterminated }}"#, "unterminated quoted string"),
    ("{{ `unterminated }}", "unterminated raw quoted string"),
    ("{{ 'ab' }}", "malformed character constant"),
    (r#"{{ "\q" }}"#, "invalid escape in quoted string"),
    ("{{ | upper }}", "unexpected `|` in command"),
    ("{{ ( .Os }}", "unexpected `}}` in command"),
    ("{{ .Os ) }}", "unexpected `)` in command"),
    ("{{ .Os(1) }}", "unexpected `(` in operand"),
    ("{{ .Os; }}", "unexpected character ';'"),
    ("{{ 3x }}", r#"bad number syntax: "3x""#),
    ("{{ 99999999999999999999 }}", r#"bad number syntax: "99999999999999999999""#),
    ("{{ 1.2.3 }}", r#"bad number syntax: "1.2.3""#),
    (r#"{{ define "x" }}{{end}}"#, "{{define}} is not supported here"),
];

#[test]
fn what_is_wrong_is_said() {
    for (template, expected) in MALFORMED {
        assert_eq!(Template::parse(template).unwrap_err().message, *expected, "{template}");
    }
    for (template, expected) in FAILS {
        let parsed = Template::parse(template).unwrap();
        assert_eq!(parsed.render(&image()).unwrap_err().message, *expected, "{template}");
    }
}

#[test]
fn an_unknown_field_names_those_that_exist() {
    let error = render("{{.GraphDriver.Nmae}}").unwrap_err();
    assert_eq!(error.fields, ["Name", "Data"]);
}

#[test]
fn null_prints_as_the_type_it_stands_for() {
    let text = render(
        "{{.Config.Entrypoint}} {{json .Config.Entrypoint}} {{json .Config.Volumes}} {{.Config.Volumes}}",
    );
    assert_eq!(text.unwrap(), "[] null null map[]");
    assert_eq!(render("{{join .Config.Entrypoint \",\"}}|{{index .Config.Volumes \"x\"}}|").unwrap(), "||");
}

#[test]
fn a_header_keeps_its_titles() {
    let titles = Value::map([("ID", Value::str("IMAGE ID")), ("Tag", Value::str("TAG"))]);
    let header = |template| Template::parse(template).unwrap().render_header(&titles);
    assert_eq!(header("{{.ID}}\t{{lower .Tag}}"), "IMAGE ID\tTAG");
    assert_eq!(
        header(r#"{{join (split .Tag "x") "y"}} {{truncate .ID 2}} {{pad .Tag 1 1}}"#),
        "TAG IMAGE ID  TAG "
    );
    assert_eq!(header("{{json .}}"), "");
    assert_eq!(header("{{.ID}} {{.Nope}} {{json .}} {{.Tag}}"), "IMAGE ID <no value> ");
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(200_000), ")".repeat(200_000));
    assert_eq!(Template::parse(&deep).unwrap_err().message, "too deeply nested");
    let deep = "{{if true}}".repeat(200_000);
    assert_eq!(Template::parse(&deep).unwrap_err().message, "too deeply nested");
    let chain = format!("{{{{.Os{}}}}}", ".x".repeat(200_000));
    assert_eq!(render(&chain).unwrap_err().message, "can't evaluate field x in type string");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 20_000, ..Default::default() })]

    /// Pieces of the language in any order give a text or an error.
    #[test]
    fn no_template_panics(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..12)) {
        let template = pieces.concat();
        drop(render(&template));
        drop(render(&format!("{{{{{template}}}}}")));
        if let Ok(parsed) = Template::parse(&template) {
            parsed.render_header(&Value::map([("Os", Value::str("OS"))]));
        }
    }
}

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "{{", "}}", "{{-", "-}}", " ", "\n", ".", ".Os", ".RepoTags", ".Config", ".Labels", "$", "$x", ":=", "=", ",", "|",
    "(", ")", "if ", "else ", "end", "range ", "with ", "break", "continue", "0", "-1", "1.5", "9e99", "0x", "'a'",
    "\"é%*[1]d\"", "`raw`", "\"", "'", "\\", "/*", "*/", "nil", "true", "printf ", "print ", "index ", "slice ", "len ",
    "join ", "split ", "title ", "truncate ", "pad ", "json ", "eq ", "lt ", "and ", "or ", "not ", "html ", "urlquery ",
    "\"%08.3f %-5q %x %U %c %+v %[3]s %.*f %\"", "é", "\u{0}", "{{range $i, $x := .RepoTags}}", "{{end}}", "{{.Os}}",
];
