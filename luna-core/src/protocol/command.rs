//! The table of commands: each name with its request, its reply and whether it may be sent twice.

use super::{
    Fault, Reason, body::wrong, control::*, diffusion::*, lora::*, models::*, save::*, text::*, vae::*, vision::*,
};
use crate::{Error, ErrorKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A request of a command.
pub trait Command: Serialize + DeserializeOwned {
    /// The command's name on the wire.
    const NAME: &'static str;
    /// Whether doing it twice is as good as doing it once.
    const IDEMPOTENT: bool;
    /// The fields of its reply.
    type Reply: Serialize + DeserializeOwned;
}

/// A reply without fields of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

macro_rules! commands {
    ($($name:literal $request:ident -> $reply:ty, $twice:ident;)*) => {
        $(impl Command for $request {
            const NAME: &'static str = $name;
            const IDEMPOTENT: bool = commands!(@ $twice);
            type Reply = $reply;
        })*

        /// A request of any command.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Request {
            $(#[doc = concat!("`", $name, "`")] $request($request),)*
        }

        impl Request {
            /// Every command's name.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The command's name.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$request(_) => $name,)* }
            }

            /// Reads the fields of a command.
            ///
            /// # Errors
            /// A fault for an unknown command, or for fields that are missing, wrong or unknown.
            pub fn parse(name: &str, fields: Map<String, Value>) -> Result<Self, Fault> {
                match name {
                    $($name => serde_json::from_value(Value::Object(fields)).map(Self::$request).map_err(|error| {
                        wrong(format!("the fields of `{name}` are wrong: {error}")).into()
                    }),)*
                    _ => Err(unknown(name)),
                }
            }
        }
    };
    (@ twice) => { true };
    (@ once) => { false };
}

commands! {
    "hello" Hello -> Welcome, twice;
    "negotiate_ipc" NegotiateIpc -> IpcOffer, twice;
    "ping" Ping -> Pong, twice;
    "echo" Echo -> Echoed, twice;
    "get_info" GetInfo -> Info, twice;
    "get_status" GetStatus -> Map<String, Value>, twice;
    "register_model" RegisterModel -> ModelInfo, twice;
    "register_model_by_path" RegisterModelByPath -> ModelInfo, twice;
    "list_models" ListModels -> Models, twice;
    "unload_models" UnloadModels -> Unloaded, twice;
    "vae_encode" VaeEncode -> VaeEncoded, twice;
    "vae_decode" VaeDecode -> VaeDecoded, twice;
    "clip_tokenize" ClipTokenize -> Tokens, twice;
    "clip_encode" ClipEncode -> TextEncoded, twice;
    "clip_encode_sdxl" ClipEncodeSdxl -> TextEncoded, twice;
    "clip_encode_from_tokens" ClipEncodeFromTokens -> TextEncoded, twice;
    "zimage_encode" ZimageEncode -> TextEncoded, twice;
    "model_forward" ModelForward -> Forwarded, twice;
    "set_attention_mode" SetAttentionMode -> AttentionModeSet, twice;
    "encode_vision" EncodeVision -> VisionEncoded, twice;
    "vlm_generate" VlmGenerate -> VlmGenerated, twice;
    "lora_cache_get" LoraCacheGet -> LoraInfo, twice;
    "lora_cache_put" LoraCachePut -> LoraInfo, twice;
    "lora_cache_check" LoraCacheCheck -> LoraChecked, twice;
    "lora_cache_stats" LoraCacheStats -> LoraStats, twice;
    "save_images_async" SaveImagesAsync -> JobAccepted, once;
    "submit_async" SubmitAsync -> JobAccepted, once;
    "job_status" JobStatus -> JobState, twice;
    "job_cancel" JobCancel -> JobState, twice;
    "cancel" Cancel -> Cancelled, twice;
    "reset" Reset -> ResetDone, twice;
    "shutdown" Shutdown -> Empty, once;
}

fn unknown(name: &str) -> Fault {
    let nearest = Request::NAMES.iter().copied().find(|known| known.contains(name) || name.contains(known));
    let error = Error::new(ErrorKind::InvalidInput, "there is no such command").found(format!("`{name}`"));
    let error = match nearest {
        Some(nearest) if !name.is_empty() => error.expected(format!("perhaps `{nearest}`")),
        _ => error,
    };
    Fault::because(Reason::UnknownCommand, error.remedy("`get_info` tells the commands"))
}
