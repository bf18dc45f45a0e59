//! LoRAs of every kind and dialect against ComfyUI, PEFT and LyCORIS on denoisers; what may not change, and what must not
//! be dropped.

mod coverage;
mod exact;
mod fuzz;
mod merged;
mod quantised;
