//! The C ABI as programs meet it: the header, the built library, and programs in C, C++ and Python over it.

mod built;
mod c;
mod calls;
mod cpp;
mod header;
mod load;
mod loaded;
mod lora;
mod misuse;
mod programs;
mod python;
mod sanitizers;
mod text;
mod vlm;
