//! Making the changes.

use serde_json::{Map, Value};

use super::word::Word;
use super::{Change, ChangeError, Command, Instruction, value};

/// Most bytes of one value, with its variables put in. A program's arguments and environment have no more room.
const MAX_VALUE: usize = 1 << 20;

/// Makes the changes, in their order, to `config`: the object of this name in an image config. Fields that the
/// changes are not about stay as they are, at their place.
///
/// An `ENTRYPOINT` takes away a command that was there before, which is an argument of another program; not one that
/// an earlier change has set.
///
/// # Errors
/// A value that makes no sense, or is too long, once its variables are put in. `config` has some of the changes then.
pub fn apply(changes: &[Change], config: &mut Map<String, Value>) -> Result<(), ChangeError> {
    let mut command_set = false;
    for Change(instruction) in changes {
        let applier = Applier { instruction: instruction.name() };
        match instruction {
            Instruction::Cmd(command) => {
                applier.command(config, "Cmd", command);
                command_set = true;
            }
            Instruction::Entrypoint(command) => {
                applier.command(config, "Entrypoint", command);
                if !command_set {
                    config.shift_remove("Cmd");
                }
            }
            Instruction::Env(pairs) => applier.environment(config, pairs)?,
            Instruction::Label(pairs) => {
                for (name, text) in applier.pairs(config, pairs)? {
                    object(config, "Labels").insert(name, Value::String(text));
                }
            }
            Instruction::Expose(words) => {
                for word in words {
                    let text = applier.expand(config, word)?;
                    for port in value::ports(&text).map_err(|reason| applier.invalid(reason))? {
                        object(config, "ExposedPorts").insert(port, Value::Object(Map::new()));
                    }
                }
            }
            Instruction::HealthCheck(check) => {
                config.insert("Healthcheck".to_owned(), check.value());
            }
            Instruction::Volume(words) => {
                for word in words {
                    let text = applier.checked(config, word, value::filled)?;
                    object(config, "Volumes").insert(text.trim().to_owned(), Value::Object(Map::new()));
                }
            }
            Instruction::OnBuild(text) => list(config, "OnBuild").push(Value::String(text.clone())),
            Instruction::StopSignal(word) => {
                let text = applier.checked(config, word, value::signal)?;
                config.insert("StopSignal".to_owned(), Value::String(text));
            }
            Instruction::User(word) => {
                let text = applier.checked(config, word, value::filled)?;
                config.insert("User".to_owned(), Value::String(text));
            }
            Instruction::WorkDir(word) => {
                let text = applier.checked(config, word, value::filled)?;
                let current = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let directory = value::directory(current, &text);
                config.insert("WorkingDir".to_owned(), Value::String(directory));
            }
        }
    }
    Ok(())
}

struct Applier {
    instruction: &'static str,
}

impl Applier {
    fn invalid(&self, reason: String) -> ChangeError {
        ChangeError::Invalid { instruction: self.instruction, reason }
    }

    fn expand(&self, config: &Map<String, Value>, word: &Word) -> Result<String, ChangeError> {
        let environment = config.get("Env").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let variable = |name: &str| {
            let pairs = environment.iter().filter_map(|entry| entry.as_str()?.split_once('='));
            // Of a name that comes twice the first counts, as in Moby.
            pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        word.expand(&variable, MAX_VALUE)
            .ok_or(ChangeError::TooLong { instruction: self.instruction, limit: MAX_VALUE })
    }

    fn checked(
        &self,
        config: &Map<String, Value>,
        word: &Word,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, ChangeError> {
        let text = self.expand(config, word)?;
        check(&text).map_err(|reason| self.invalid(reason))?;
        Ok(text)
    }

    /// Those of one instruction do not see each other.
    fn pairs(
        &self,
        config: &Map<String, Value>,
        pairs: &[(Word, Word)],
    ) -> Result<Vec<(String, String)>, ChangeError> {
        pairs
            .iter()
            .map(|(name, text)| Ok((self.checked(config, name, value::name)?, self.expand(config, text)?)))
            .collect()
    }

    fn environment(
        &self,
        config: &mut Map<String, Value>,
        pairs: &[(Word, Word)],
    ) -> Result<(), ChangeError> {
        for (name, text) in self.pairs(config, pairs)? {
            let entry = Value::String(format!("{name}={text}"));
            let environment = list(config, "Env");
            let same = |known: &&mut Value| {
                known.as_str().is_some_and(|known| known.split('=').next() == Some(&name))
            };
            match environment.iter_mut().find(same) {
                Some(known) => *known = entry,
                None => environment.push(entry),
            }
        }
        Ok(())
    }

    fn command(&self, config: &mut Map<String, Value>, field: &str, command: &Command) {
        debug_assert!(["CMD", "ENTRYPOINT"].contains(&self.instruction));
        let words = match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let shell = config.get("Shell").and_then(Value::as_array);
                let shell =
                    shell.map(|words| words.iter().filter_map(Value::as_str).map(str::to_owned).collect());
                let mut words = shell
                    .filter(|words: &Vec<String>| !words.is_empty())
                    .unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                words.push(line.clone());
                words
            }
        };
        // Whatever it says is about the command before.
        config.shift_remove("ArgsEscaped");
        if words.is_empty() {
            config.shift_remove(field);
        } else {
            config.insert(field.to_owned(), words.into());
        }
    }
}

/// The object `name` of the config; what is not one, `null` mostly, becomes one.
fn object<'c>(config: &'c mut Map<String, Value>, name: &str) -> &'c mut Map<String, Value> {
    let value = config.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it has just been made an object"),
    }
}

fn list<'c>(config: &'c mut Map<String, Value>, name: &str) -> &'c mut Vec<Value> {
    let value = config.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it has just been made a list"),
    }
}
