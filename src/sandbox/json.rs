//! Writes JSON text whose members keep the order in which they were written.
//!
//! Sentry's bodies have an order, and a proxy that reads them may come to depend on it; a map would sort them.
//!
//! Invariant: every text and name is escaped by serde; what is called raw is JSON already.
//! Not here: the shapes themselves (`sandbox::shapes`).

/// A JSON object that is being written.
#[derive(Debug, Clone)]
#[must_use = "an object is nothing until it is finished"]
pub struct Object {
    text: String,
}

impl Object {
    /// Starts an empty object.
    pub fn start() -> Self {
        Self { text: String::from("{") }
    }

    /// Adds a member that is a text.
    pub fn text(self, name: &str, value: &str) -> Self {
        let value = quoted(value);
        self.raw(name, &value)
    }

    /// Adds a member that is an identifier: a number written as a text, as Sentry does.
    pub fn identifier(self, name: &str, value: u64) -> Self {
        self.text(name, &value.to_string())
    }

    /// Adds a member whose value is JSON already.
    pub fn raw(self, name: &str, value: &str) -> Self {
        let member = format!("{}:{value}", quoted(name));
        self.members(&member)
    }

    /// Adds a member that is a list of JSON values.
    pub fn list(self, name: &str, values: impl IntoIterator<Item = String>) -> Self {
        let value = list(values);
        self.raw(name, &value)
    }

    /// Adds a member that is a list of texts.
    pub fn texts(self, name: &str, values: &[&str]) -> Self {
        self.list(name, values.iter().map(|value| quoted(value)))
    }

    /// Adds members that are written already, as in `"a":1,"b":2`.
    pub fn members(mut self, members: &str) -> Self {
        if self.text.len() > 1 && !members.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(members);
        self
    }

    /// Ends the object and returns its text.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// Returns a JSON list of values that are JSON already.
pub fn list(values: impl IntoIterator<Item = String>) -> String {
    let mut text = String::from("[");
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&value);
    }
    text.push(']');
    text
}

/// Returns a text as JSON.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_are_escaped() {
        let text = Object::start()
            .identifier("z", 7)
            .text("a", "say \"x\"")
            .texts("m", &["1", "2"])
            .members("\"k\":null")
            .finish();
        assert_eq!(text, r#"{"z":"7","a":"say \"x\"","m":["1","2"],"k":null}"#);
    }

    #[test]
    fn an_empty_object_and_an_empty_list_are_json() {
        assert_eq!(Object::start().members("").finish(), "{}");
        assert_eq!(list([]), "[]");
    }
}
