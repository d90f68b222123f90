//! Runs a parsed template.

use std::rc::Rc;

use super::TemplateError;
use super::funcs::{self, Functions};
use super::parse::{Branch, Node, Operand, Pipeline};
use super::value::Value;

pub(super) struct Exec {
    pub(super) out: String,
    functions: Functions,
    /// Innermost last; a name may stand more than once.
    variables: Vec<(String, Value)>,
}

/// What follows a node.
#[derive(PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

type Result<T, E = TemplateError> = std::result::Result<T, E>;

impl Exec {
    pub(super) fn new(data: &Value, functions: Functions) -> Self {
        Self { out: String::new(), functions, variables: vec![("$".to_owned(), data.clone())] }
    }

    pub(super) fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::Next
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        match value {
                            Value::Nil => self.out.push_str("<no value>"),
                            value => value.print(&mut self.out),
                        }
                    }
                    Flow::Next
                }
                Node::If(branch) => self.branch(branch, dot, false)?,
                Node::With(branch) => self.branch(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn branch(&mut self, branch: &Branch, dot: &Value, moves_dot: bool) -> Result<Flow> {
        let scope = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let flow = if !value.truth() {
            self.list(&branch.otherwise, dot)?
        } else if moves_dot {
            self.list(&branch.then, &value)?
        } else {
            self.list(&branch.then, dot)?
        };
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow> {
        let scope = self.variables.len();
        let value = self.commands(&branch.pipeline, dot)?;
        let mut flow = Flow::Next;
        match &value {
            Value::Nil => flow = self.list(&branch.otherwise, dot)?,
            Value::Int(end) if *end > 0 => {
                for i in 0..*end {
                    if !self.iteration(branch, Value::Int(i), &Value::Int(i))? {
                        break;
                    }
                }
            }
            Value::List(_) if value.truth() => {
                for (i, element) in value.as_list().unwrap_or_default().iter().enumerate() {
                    let index = Value::Int(i64::try_from(i).unwrap_or(i64::MAX));
                    if !self.iteration(branch, index, element)? {
                        break;
                    }
                }
            }
            Value::Map(_) | Value::Struct(_) if value.as_fields().is_some_and(|f| !f.is_empty()) => {
                let mut fields = value.as_fields().unwrap_or_default().to_vec();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, element) in fields {
                    if !self.iteration(branch, Value::Str(key), &element)? {
                        break;
                    }
                }
            }
            Value::Int(_) | Value::List(_) | Value::Map(_) | Value::Struct(_) => {
                flow = self.list(&branch.otherwise, dot)?;
            }
            other => {
                let mut text = String::new();
                other.print(&mut text);
                return Err(TemplateError::new(format!("range can't iterate over {text}")));
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    /// One turn of a range; false after a break.
    fn iteration(&mut self, branch: &Branch, index: Value, element: &Value) -> Result<bool> {
        let scope = self.variables.len();
        let values = match branch.pipeline.variables.len() {
            2 => vec![index, element.clone()],
            _ => vec![element.clone()],
        };
        for (name, value) in branch.pipeline.variables.iter().zip(values) {
            self.set(name, value, branch.pipeline.assign);
        }
        let flow = self.list(&branch.then, element)?;
        self.variables.truncate(scope);
        Ok(flow != Flow::Break)
    }

    fn set(&mut self, name: &str, value: Value, assign: bool) {
        let existing = self.variables.iter_mut().rev().find(|(known, _)| assign && known == name);
        match existing {
            Some((_, slot)) => *slot = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.assign);
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Value::Nil))
    }

    /// Runs one command; `last` is what the command before it gave.
    fn command(&mut self, command: &[Operand], dot: &Value, last: Option<Value>) -> Result<Value> {
        let (first, rest) = (&command[0], &command[1..]);
        if let Operand::Function(name) = first {
            return self.call(name, rest, dot, last);
        }
        if !rest.is_empty() || last.is_some() {
            return Err(TemplateError::new(match first {
                Operand::Field(name) => format!("{name} is not a method but has arguments"),
                Operand::Of(_, names) => format!("{} is not a method but has arguments", names.join(".")),
                _ => "can't give argument to non-function".to_owned(),
            }));
        }
        if matches!(first, Operand::Nil) {
            return Err(TemplateError::new("nil is not a command"));
        }
        self.operand(first, dot)
    }

    fn call(&mut self, name: &str, operands: &[Operand], dot: &Value, last: Option<Value>) -> Result<Value> {
        let count = operands.len() + usize::from(last.is_some());
        funcs::check_count(name, count).map_err(TemplateError::new)?;
        if matches!(name, "and" | "or") {
            // The operands behind the one that decides are not evaluated.
            let mut value = Value::Nil;
            for operand in operands {
                value = self.operand(operand, dot)?;
                if value.truth() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut args = Vec::with_capacity(count);
        for operand in operands {
            args.push(self.operand(operand, dot)?);
        }
        args.extend(last);
        funcs::call(self.functions, name, &args)
            .map_err(|message| TemplateError::new(format!("error calling {name}: {message}")))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value> {
        Ok(match operand {
            Operand::Dot => dot.clone(),
            Operand::Nil => Value::Nil,
            Operand::Bool(b) => Value::Bool(*b),
            Operand::Int(n) => Value::Int(*n),
            Operand::Float(n) => Value::Float(*n),
            Operand::Str(text) => Value::Str(Rc::from(text.as_str())),
            Operand::Function(name) => self.call(name, &[], dot, None)?,
            Operand::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| TemplateError::new(format!("undefined variable `{name}`")))?,
            Operand::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
            Operand::Field(name) => field(dot, name)?,
            Operand::Of(inner, names) => {
                let inner = self.operand(inner, dot)?;
                names.iter().try_fold(inner, |value, name| field(&value, name))?
            }
        })
    }
}

fn field(value: &Value, name: &str) -> Result<Value> {
    match value {
        Value::Map(_) => Ok(value.get(name).unwrap_or(Value::Nil)),
        Value::Struct(fields) => value.get(name).ok_or_else(|| {
            let known = fields.iter().map(|(name, _)| name.to_string()).collect();
            TemplateError { message: format!("can't evaluate field {name}"), fields: known }
        }),
        Value::Nil => Err(TemplateError::new(format!("nil pointer evaluating {name}"))),
        other => {
            Err(TemplateError::new(format!("can't evaluate field {name} in type {}", other.type_name())))
        }
    }
}
