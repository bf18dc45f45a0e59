//! Has a vision-language model describe a picture, and prints the words as they come: `describe_picture MODEL PICTURE`.

use luna_core::{
    Error, ErrorKind, Limits, Runtime,
    picture::read_picture,
    vlm::{GenerateOptions, Question, VlmModel},
};
use std::path::PathBuf;

fn main() -> luna_core::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, picture] = &arguments[..] else {
        return Err(Error::new(ErrorKind::InvalidInput, "usage: describe_picture MODEL PICTURE"));
    };
    let model = VlmModel::open(model, &Runtime::cpu()?)?;
    let picture = read_picture(picture, &Limits::default())?;
    let options = GenerateOptions { max_tokens: 16, ..GenerateOptions::default() };
    let question = Question::new("Describe this picture.");
    let answer = model.describe(&[picture], &question, &options, &mut |piece| print!("{}", piece.text))?;
    println!("\n{} tokens, ended by {}", answer.ids.len(), answer.finish.name());
    Ok(())
}
