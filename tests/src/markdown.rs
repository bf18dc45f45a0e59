//! Code blocks of Markdown files.

/// The text of every fenced block of this language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == fence {
            let block: Vec<_> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

/// Every command of the `sh` blocks.
pub fn shell_lines(text: &str) -> Vec<String> {
    let lines = blocks(text, "sh")
        .into_iter()
        .flat_map(|block| block.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}
