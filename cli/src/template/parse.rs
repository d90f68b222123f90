//! Tokens as a tree.

use super::TemplateError;
use super::funcs;
use super::lex::{Token, lex};

/// How deep parentheses and blocks may nest, so that hostile templates cannot exhaust the stack.
const MAX_DEPTH: usize = 100;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands joined by `|`, and the variables that take the result.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// `$x = …` sets a variable that exists, `$x := …` makes one.
    pub(super) assign: bool,
    /// Each a non-empty list: a value, or a function and its arguments.
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug)]
pub(super) enum Operand {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Function(String),
    Variable(String),
    Pipeline(Box<Pipeline>),
    /// A field of dot.
    Field(String),
    /// A field of a field (and so on) of another operand.
    Of(Box<Operand>, Vec<String>),
}

impl Operand {
    /// Whether this can neither be called nor have fields.
    fn is_constant(&self) -> bool {
        matches!(self, Self::Dot | Self::Nil | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_))
    }
}

pub(super) fn parse(template: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser =
        Parser { tokens: lex(template)?, at: 0, variables: vec!["$".to_owned()], loops: 0, depth: 0 };
    match parser.list()? {
        (nodes, Stop::End) => Ok(nodes),
        (_, Stop::Word(word)) => Err(TemplateError::new(format!("unexpected {{{{{word}}}}}"))),
    }
}

/// What ended a list of nodes.
enum Stop {
    End,
    /// `{{end` or `{{else`, consumed up to and with that word.
    Word(String),
}

struct Parser {
    tokens: Vec<Token>,
    /// Index of the next token.
    at: usize,
    /// The variables in scope.
    variables: Vec<String>,
    /// How many `range` blocks surround this place.
    loops: usize,
    depth: usize,
}

impl Parser {
    fn list(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(token) = self.next() {
            if let Token::Text(text) = token {
                nodes.push(Node::Text(text));
                continue;
            }
            // Outside of text there is nothing but `{{`: the lexer closes every action it opens.
            self.skip_space();
            let word = match self.peek() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "if" | "with" | "range" => {
                    self.at += 1;
                    nodes.push(self.branch(&word)?);
                }
                "end" | "else" => {
                    self.at += 1;
                    return Ok((nodes, Stop::Word(word)));
                }
                "break" | "continue" => {
                    self.at += 1;
                    if self.loops == 0 {
                        return Err(TemplateError::new(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                    }
                    self.close(&word)?;
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return Err(TemplateError::new(format!("{{{{{word}}}}} is not supported here")));
                }
                _ => nodes.push(Node::Action(self.pipeline("command", &Token::Right)?)),
            }
        }
        Ok((nodes, Stop::End))
    }

    /// The rest of `{{if …}} … {{else}} … {{end}}` and its like.
    fn branch(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        self.enter()?;
        let outer = self.variables.len();
        let pipeline = self.pipeline(keyword, &Token::Right)?;
        if pipeline.variables.len() > usize::from(keyword == "range") + 1 {
            return Err(TemplateError::new(format!("too many declarations in {keyword}")));
        }
        let inner = self.variables.len();
        let is_range = usize::from(keyword == "range");
        self.loops += is_range;
        let (then, stop) = self.list()?;
        self.loops -= is_range;
        self.variables.truncate(inner);
        let mut otherwise = Vec::new();
        if Self::at_else(&stop)? {
            self.skip_space();
            match self.peek() {
                Some(Token::Word(word)) if (word == "if" || word == "with") && keyword != "range" => {
                    let word = word.clone();
                    self.at += 1;
                    // The `{{end}}` of the inner block closes this one too.
                    otherwise.push(self.branch(&word)?);
                }
                _ => {
                    self.close("else")?;
                    let (nodes, stop) = self.list()?;
                    if Self::at_else(&stop)? {
                        return Err(TemplateError::new("expected {{end}}; found {{else}}"));
                    }
                    self.close("end")?;
                    otherwise = nodes;
                }
            }
        } else {
            self.close("end")?;
        }
        self.variables.truncate(outer);
        self.depth -= 1;
        let branch = Branch { pipeline, then, otherwise };
        Ok(match keyword {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    fn at_else(stop: &Stop) -> Result<bool, TemplateError> {
        match stop {
            Stop::Word(word) => Ok(word == "else"),
            Stop::End => Err(TemplateError::new("a block has no {{end}}")),
        }
    }

    fn close(&mut self, context: &str) -> Result<(), TemplateError> {
        self.skip_space();
        match self.next() {
            Some(Token::Right) | None => Ok(()),
            Some(other) => Err(unexpected(&other, context)),
        }
    }

    /// A pipeline and the `end` token behind it.
    fn pipeline(&mut self, context: &str, end: &Token) -> Result<Pipeline, TemplateError> {
        self.enter()?;
        let (variables, assign) = self.declarations(context)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            if self.eat(end) {
                break;
            }
            let command = self.command(end)?;
            let constant = command[0].is_constant();
            commands.push(command);
            if commands.len() > 1 && constant {
                let stage = commands.len();
                return Err(TemplateError::new(format!("non executable command in pipeline stage {stage}")));
            }
        }
        if commands.is_empty() {
            return Err(TemplateError::new(format!("missing value for {context}")));
        }
        // Declared only now: the pipeline itself does not see its own variables.
        if !assign {
            self.variables.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipeline { variables, assign, commands })
    }

    /// `$x :=`, `$x =` or, in a range, `$i, $x :=`; nothing is consumed where there is none.
    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let start = self.at;
        let mut names = Vec::new();
        loop {
            self.skip_space();
            let Some(Token::Variable(name)) = self.next() else { break };
            names.push(name);
            self.skip_space();
            match self.next() {
                Some(Token::Declare) => return Ok((names, false)),
                Some(Token::Assign) => {
                    return match names.iter().find(|name| !self.variables.contains(name)) {
                        Some(name) => Err(undefined(name)),
                        None => Ok((names, true)),
                    };
                }
                Some(Token::Comma) if context == "range" && names.len() == 1 => {}
                Some(Token::Comma) => {
                    return Err(TemplateError::new(format!("too many declarations in {context}")));
                }
                _ => break,
            }
        }
        self.at = start;
        Ok((Vec::new(), false))
    }

    /// Operands up to and with a `|`, or up to `end`.
    fn command(&mut self, end: &Token) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = vec![self.operand()?];
        loop {
            let spaced = self.skip_space();
            if self.peek() == Some(end) || self.eat(&Token::Pipe) {
                return Ok(operands);
            }
            if !spaced && let Some(token) = self.peek() {
                return Err(unexpected(token, "operand"));
            }
            operands.push(self.operand()?);
        }
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let token = self.next().ok_or_else(|| TemplateError::new("unclosed action"))?;
        let mut operand = match token {
            Token::Dot => Operand::Dot,
            Token::Field(name) => Operand::Field(name),
            Token::Variable(name) if self.variables.contains(&name) => Operand::Variable(name),
            Token::Variable(name) => return Err(undefined(&name)),
            Token::Int(n) => Operand::Int(n),
            Token::Float(n) => Operand::Float(n),
            Token::Str(text) => Operand::Str(text),
            Token::Word(word) => match word.as_str() {
                "nil" => Operand::Nil,
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                name if funcs::is_function(name) => Operand::Function(word),
                _ => return Err(TemplateError::new(format!("function `{word}` is not defined"))),
            },
            Token::LeftParen => {
                Operand::Pipeline(Box::new(self.pipeline("parenthesized pipeline", &Token::RightParen)?))
            }
            other => return Err(unexpected(&other, "command")),
        };
        let mut names = Vec::new();
        while let Some(Token::Field(name)) = self.peek() {
            if operand.is_constant() {
                return Err(unexpected(&Token::Field(name.clone()), "operand"));
            }
            names.push(name.clone());
            self.at += 1;
        }
        if !names.is_empty() {
            operand = Operand::Of(Box::new(operand), names);
        }
        Ok(operand)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) -> bool {
        self.eat(&Token::Space)
    }

    fn enter(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::new("too deeply nested"));
        }
        Ok(())
    }
}

fn unexpected(token: &Token, context: &str) -> TemplateError {
    TemplateError::new(format!("unexpected {} in {context}", token.describe()))
}

fn undefined(name: &str) -> TemplateError {
    TemplateError::new(format!("undefined variable `{name}`"))
}
