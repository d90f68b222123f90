//! `layerstore inspect`.

use serde::Serialize as _;
use serde_json::Value as Json;

use crate::args::Inspect;
use crate::context::Context;
use crate::errors::{Failures, for_each};
use crate::output::print;
use crate::template::{Shape, Template, Value};

/// Which parts of Docker's JSON are maps and lists in Go.
const SHAPE: Shape = Shape {
    maps: &["Annotations", "Data", "ExposedPorts", "Labels", "Volumes"],
    lists: &["Cmd", "Entrypoint", "Env", "Layers", "OnBuild", "RepoDigests", "RepoTags", "Shell"],
};

pub(super) fn run(context: &Context, args: &Inspect) -> Result<(), Failures> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(template) => Some(Template::parse(template)?),
    };
    let store = context.store()?;
    let mut found = Vec::new();
    let mut out = String::new();
    // What exists is printed even if something else does not.
    let result = for_each(&args.images, |name| {
        let image = store.inspect(name)?;
        match &template {
            Some(template) => {
                out.push_str(&template.render(&Value::from_json(&image, SHAPE))?);
                out.push('\n');
            }
            None => found.push(image),
        }
        Ok(())
    });
    if template.is_none() {
        let found = Json::Array(found);
        out = if args.format.as_deref() == Some("json") { format!("{found}\n") } else { indented(&found) };
    }
    print(out)?;
    result
}

/// JSON with four spaces of indentation, as Docker prints it.
fn indented(json: &Json) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let written = json.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter));
    debug_assert!(written.is_ok(), "JSON values can be written to memory");
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_indented_as_by_docker() {
        assert_eq!(indented(&json!([])), "[]\n");
        let expected = "[\n    {\n        \"Id\": \"x\",\n        \"RepoTags\": []\n    }\n]\n";
        assert_eq!(indented(&json!([{"Id": "x", "RepoTags": []}])), expected);
    }
}
