//! `layerstore inspect`.

use serde::Serialize as _;
use serde_json::Value as Json;

use crate::args::{Inspect, InspectKind};
use crate::context::Context;
use crate::errors::{Failures, for_each};
use crate::output::print;
use crate::template::{Shape, Template, Value};

/// Which parts of Docker's JSON are maps and lists in Go.
const SHAPE: Shape = Shape {
    maps: &["Annotations", "Data", "ExposedPorts", "StorageOpt", "Labels", "Volumes"],
    lists: &["Args", "Cmd", "Entrypoint", "Env", "Layers", "OnBuild", "RepoDigests", "RepoTags", "Shell"],
};

pub(super) fn run(context: &Context, args: &Inspect) -> Result<(), Failures> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(template) => Some(Template::parse(template)?),
    };
    let store = context.store_to_look()?;
    let mut found = Vec::new();
    let mut out = String::new();
    // What exists is printed even if something else does not.
    let result = for_each(&args.names, |name| {
        let image = match args.kind {
            Some(InspectKind::Image) => store.inspect(name)?,
            Some(InspectKind::Container) => store.inspect_container(name)?,
            None => store.inspect_any(name)?,
        };
        match &template {
            Some(template) => {
                out.push_str(&template.render(&Value::from_json(&complete(image), SHAPE))?);
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

/// Fields that Docker's JSON leaves out where they are empty, but that templates may name.
const OPTIONAL: &[&str] = &["Parent", "Comment", "DockerVersion", "Author", "Variant", "OsVersion"];

/// The same of `Config`; those that are not texts are null, see [`SHAPE`].
const OPTIONAL_TEXTS_OF_CONFIG: &[&str] = &["User", "WorkingDir", "StopSignal"];
const OPTIONAL_OF_CONFIG: &[&str] =
    &["Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "Volumes"];

/// The object with every field that Docker's types have, so that a template works on any image.
fn complete(mut image: Json) -> Json {
    let is_image = image.get("RepoTags").is_some();
    let add = |object: &mut Json, names: &[&str], empty: &Json| {
        if let Some(object) = object.as_object_mut() {
            for name in names {
                object.entry(*name).or_insert_with(|| empty.clone());
            }
        }
    };
    let text = Json::String(String::new());
    if is_image {
        add(&mut image, OPTIONAL, &text);
    }
    if let Some(config) = image.get_mut("Config") {
        add(config, OPTIONAL_TEXTS_OF_CONFIG, &text);
        add(config, OPTIONAL_OF_CONFIG, &Json::Null);
    }
    image
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
    fn a_template_may_name_what_an_image_does_not_have() {
        let image =
            complete(json!({"RepoTags": [], "Os": "linux", "Config": {"Env": ["A=b"], "Labels": null}}));
        let render = |template| Template::parse(template)?.render(&Value::from_json(&image, SHAPE));
        assert_eq!(render("{{.Variant}}|{{.Config.User}}|{{.Config.Env}}").unwrap(), "||[A=b]");
        assert_eq!(render(r#"{{.Config.Labels}} {{index .Config.Labels "x"}}|"#).unwrap(), "map[] |");
        assert_eq!(
            render("{{.Config.Cmd}} {{json .Config.Cmd}} {{len .Config.Volumes}}").unwrap(),
            "[] null 0"
        );
        assert!(render("{{.Nope}}").is_err());
    }

    #[test]
    fn json_is_indented_as_by_docker() {
        assert_eq!(indented(&json!([])), "[]\n");
        let expected = "[\n    {\n        \"Id\": \"x\",\n        \"RepoTags\": []\n    }\n]\n";
        assert_eq!(indented(&json!([{"Id": "x", "RepoTags": []}])), expected);
    }
}
