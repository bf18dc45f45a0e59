"""The header for ctypes. Generated from include/luna.h by generate.py; do not edit."""

# mypy: disable-error-code="valid-type"
import ctypes
from typing import Any

# fmt: off
LUNA_ABI_MAJOR = 1
LUNA_ABI_MINOR = 3
LUNA_MAX_RANK = 8
LUNA_FALLBACK_TILED = 1
LUNA_FALLBACK_WIDENED = 2
LUNA_STATUS_OK = 0
LUNA_STATUS_INVALID_INPUT = 1
LUNA_STATUS_INVALID_FILE = 2
LUNA_STATUS_UNSUPPORTED = 3
LUNA_STATUS_NOT_FOUND = 4
LUNA_STATUS_IO = 5
LUNA_STATUS_LIMIT_EXCEEDED = 6
LUNA_STATUS_OUT_OF_MEMORY = 7
LUNA_STATUS_CANCELLED = 8
LUNA_STATUS_BUSY = 9
LUNA_STATUS_NON_FINITE = 10
LUNA_STATUS_DEVICE = 11
LUNA_STATUS_INTERNAL = 12
LUNA_STATUS_INVALID_HANDLE = 100
LUNA_STATUS_DEADLINE = 101
LUNA_DTYPE_F32 = 0
LUNA_DTYPE_F16 = 1
LUNA_DTYPE_BF16 = 2
LUNA_DTYPE_F64 = 3
LUNA_DTYPE_U8 = 4
LUNA_DTYPE_BOOL = 5
LUNA_DTYPE_I32 = 6
LUNA_DTYPE_I64 = 7
LUNA_PRECISION_F32 = 0
LUNA_PRECISION_BF16 = 1
LUNA_PRECISION_F16 = 2
LUNA_ATTENTION_DEFAULT = 0
LUNA_ATTENTION_AUTO = 1
LUNA_ATTENTION_FLASH = 2
LUNA_ATTENTION_SPLIT = 3
LUNA_ATTENTION_PYTORCH = 4
LUNA_LOG_LEVEL_INFO = 0
LUNA_LOG_LEVEL_WARNING = 1
LUNA_LOG_LEVEL_ERROR = 2
LUNA_UNLOADED_FREED = 0
LUNA_UNLOADED_WHEN_RETURNED = 1
LUNA_TILING_AUTO = 0
LUNA_TILING_NEVER = 1
LUNA_TILING_ALWAYS = 2
LUNA_SIZE_RULE_CROP = 0
LUNA_SIZE_RULE_PAD = 1
LUNA_SIZE_RULE_REFUSE = 2
LUNA_FORMAT_PNG = 0
LUNA_FORMAT_PNG16 = 1
LUNA_FORMAT_WEBP = 2
LUNA_FORMAT_WEBP_LOSSLESS = 3
LUNA_FORMAT_JPEG = 4
LUNA_IF_EXISTS_NUMBER = 0
LUNA_IF_EXISTS_REFUSE = 1
LUNA_IF_EXISTS_REPLACE = 2
LUNA_GATE_DISABLED = 0
LUNA_GATE_VARIANCE = 1
LUNA_GATE_EDGE_DENSITY = 2
LUNA_GATE_BOTH = 3
LUNA_SAVE_STATE_QUEUED = 0
LUNA_SAVE_STATE_WRITING = 1
LUNA_SAVE_STATE_DONE = 2
LUNA_SAVE_STATE_FAILED = 3
LUNA_SAVE_STATE_REJECTED = 4
LUNA_SAVE_STATE_CANCELLED = 5
LUNA_LORA_MODE_FUNCTIONAL = 0
LUNA_LORA_MODE_MERGED = 1
LUNA_LORA_MODE_AUTO = 2
LUNA_NOT_MERGED_NONE = 0
LUNA_NOT_MERGED_FEW_FORWARDS = 1
LUNA_NOT_MERGED_NO_ROOM = 2
LUNA_NOT_MERGED_IN_USE = 3
LUNA_LORA_OUTCOME_APPLIED = 0
LUNA_LORA_OUTCOME_UNMATCHED = 1
LUNA_LORA_OUTCOME_WRONG_SHAPE = 2
LUNA_LORA_OUTCOME_UNSUPPORTED = 3
LUNA_DORA_BY_NAMES = 0
LUNA_DORA_COMFYUI = 1
LUNA_DORA_PEFT = 2
LUNA_FINISH_END_OF_TURN = 0
LUNA_FINISH_STOP_STRING = 1
LUNA_FINISH_MAX_TOKENS = 2
LUNA_FINISH_CONTEXT_FULL = 3
LUNA_ROLE_USER = 0
LUNA_ROLE_ASSISTANT = 1
LUNA_ROLE_SYSTEM = 2
LUNA_HALVES_BOTH = 0
LUNA_HALVES_ENCODER = 1
LUNA_HALVES_DECODER = 2
LUNA_CLIP_ACTIVATION_BY_FILE = 0
LUNA_CLIP_ACTIVATION_QUICK_GELU = 1
LUNA_CLIP_ACTIVATION_GELU = 2
LUNA_VISION_ACTIVATION_BY_FILE = 0
LUNA_VISION_ACTIVATION_QUICK_GELU = 1
LUNA_VISION_ACTIVATION_GELU = 2
LUNA_VISION_ACTIVATION_GELU_TANH = 3
LUNA_RESIZE_SHORTEST_EDGE = 0
LUNA_RESIZE_EXACT = 1
LUNA_RESIZE_KEEP = 2
LUNA_FILTER_BICUBIC = 0
LUNA_FILTER_BILINEAR = 1
LUNA_FILTER_LANCZOS = 2
luna_progress_function = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p)
luna_log_function = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)
luna_piece_function = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_void_p)


class luna_error(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("status", ctypes.c_int32),
        ("message", ctypes.c_char_p),
        ("expected", ctypes.c_char_p),
        ("found", ctypes.c_char_p),
        ("remedy", ctypes.c_char_p),
        ("text", ctypes.c_char_p),
    ]


class luna_call_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("progress", luna_progress_function),
        ("log", luna_log_function),
        ("user_data", ctypes.c_void_p),
        ("deadline_ms", ctypes.c_uint64),
    ]


class luna_call(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_open_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("budget_bytes", ctypes.c_uint64),
        ("device", ctypes.c_char_p),
        ("output_folder", ctypes.c_char_p),
        ("spool_folder", ctypes.c_char_p),
        ("log", luna_log_function),
        ("user_data", ctypes.c_void_p),
        ("lora_folders", ctypes.POINTER(ctypes.c_char_p)),
        ("lora_folder_count", ctypes.c_size_t),
        ("lora_cache_bytes", ctypes.c_uint64),
        ("merged_bytes", ctypes.c_uint64),
        ("step_cache_bytes", ctypes.c_uint64),
    ]


class luna_session(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_connect_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("token", ctypes.c_char_p),
        ("connect_for_ms", ctypes.c_uint32),
        ("wait_when_busy", ctypes.c_uint32),
        ("log", luna_log_function),
        ("user_data", ctypes.c_void_p),
    ]


class luna_stats(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("models", ctypes.c_uint64),
        ("weight_bytes", ctypes.c_uint64),
        ("budget_bytes", ctypes.c_uint64),
        ("resident_bytes", ctypes.c_uint64),
        ("available_bytes", ctypes.c_uint64),
        ("threads", ctypes.c_uint64),
        ("handles", ctypes.c_uint64),
        ("save_jobs", ctypes.c_uint64),
        ("save_jobs_finished", ctypes.c_uint64),
        ("pictures_written", ctypes.c_uint64),
        ("pictures_failed", ctypes.c_uint64),
        ("loras", ctypes.c_uint64),
        ("lora_bytes", ctypes.c_uint64),
        ("merged_bytes", ctypes.c_uint64),
        ("step_sequences", ctypes.c_uint64),
        ("step_cache_bytes", ctypes.c_uint64),
    ]


class luna_list(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_resident(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("id", ctypes.c_char_p),
        ("path", ctypes.c_char_p),
        ("bytes", ctypes.c_uint64),
        ("leases", ctypes.c_uint64),
        ("pinned", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class luna_tensor(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_view(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_uint32),
        ("strided", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("shape", ctypes.c_int64 * LUNA_MAX_RANK),
        ("strides", ctypes.c_int64 * LUNA_MAX_RANK),
    ]


class luna_component(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("kind", ctypes.c_char_p),
        ("family", ctypes.c_char_p),
        ("dialect", ctypes.c_char_p),
        ("prefix", ctypes.c_char_p),
        ("tensors", ctypes.c_uint64),
        ("parameters", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
    ]


class luna_lora_file(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("model", ctypes.c_char_p),
        ("made_for", ctypes.c_char_p),
        ("entry", ctypes.c_uint64),
        ("strength", ctypes.c_double),
        ("applied", ctypes.c_uint64),
        ("unmatched", ctypes.c_uint64),
        ("wrong_shape", ctypes.c_uint64),
        ("unsupported", ctypes.c_uint64),
        ("elsewhere", ctypes.c_uint64),
        ("mode", ctypes.c_int32),
        ("not_merged", ctypes.c_int32),
    ]


class luna_lora_adapter(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("file", ctypes.c_char_p),
        ("model", ctypes.c_char_p),
        ("entry", ctypes.c_uint64),
        ("outcome", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("key", ctypes.c_char_p),
        ("kind", ctypes.c_char_p),
        ("targets", ctypes.POINTER(ctypes.c_char_p)),
        ("target_count", ctypes.c_size_t),
        ("nearest", ctypes.c_char_p),
        ("expected", ctypes.c_char_p),
        ("found", ctypes.c_char_p),
        ("what", ctypes.c_char_p),
    ]


class luna_loras(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_lora_tag(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("prompt", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("model", ctypes.c_double),
        ("clip", ctypes.c_double),
        ("malformed", ctypes.c_char_p),
    ]


class luna_lora(ctypes.Structure):
    _fields_ = [
        ("path", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("data_bytes", ctypes.c_size_t),
        ("model", ctypes.c_double),
        ("clip", ctypes.c_double),
    ]


class luna_loras_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("strict", ctypes.c_uint32),
        ("allow_nothing", ctypes.c_uint32),
        ("mode", ctypes.c_int32),
        ("dora", ctypes.c_int32),
        ("forwards", ctypes.c_uint64),
        ("prompts", ctypes.POINTER(ctypes.c_char_p)),
        ("prompt_count", ctypes.c_size_t),
    ]


class luna_lora_name(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
    ]


class luna_vae(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_vae_load_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("halves", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
    ]


class luna_vae_info(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("latent_channels", ctypes.c_uint32),
        ("picture_channels", ctypes.c_uint32),
        ("factor", ctypes.c_uint32),
        ("has_scale", ctypes.c_uint32),
        ("scale", ctypes.c_float),
        ("shift", ctypes.c_float),
        ("weight_bytes", ctypes.c_uint64),
    ]


class luna_encode_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("precision", ctypes.c_int32),
        ("tiling", ctypes.c_int32),
        ("tile", ctypes.c_uint32),
        ("tile_overlap", ctypes.c_uint32),
        ("sizes", ctypes.c_int32),
        ("sample", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("scaled", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("memory_limit", ctypes.c_uint64),
        ("call", luna_call),
    ]


class luna_report(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("fallbacks", ctypes.c_uint32),
        ("precision", ctypes.c_int32),
        ("attention", ctypes.c_int32),
        ("tile", ctypes.c_uint32),
        ("tile_overlap", ctypes.c_uint32),
        ("tiles", ctypes.c_uint32),
        ("cached", ctypes.c_uint32),
        ("sequences", ctypes.c_uint32),
        ("non_finite", ctypes.c_uint64),
        ("memory_needed", ctypes.c_uint64),
        ("memory_available", ctypes.c_uint64),
        ("copied_bytes", ctypes.c_uint64),
        ("nanoseconds", ctypes.c_uint64),
        ("adapters_applied", ctypes.c_uint32),
        ("adapters_missed", ctypes.c_uint32),
        ("lora_mode", ctypes.c_int32),
        ("not_merged", ctypes.c_int32),
        ("queue_nanoseconds", ctypes.c_uint64),
        ("cache_hit", ctypes.c_uint32),
        ("cache_hits", ctypes.c_uint32),
        ("cache_compared", ctypes.c_uint32),
        ("cache_difference", ctypes.c_float),
        ("layers_branch", ctypes.c_uint32),
        ("layers_built", ctypes.c_uint32),
        ("layers_merged", ctypes.c_uint32),
        ("layers_bias", ctypes.c_uint32),
    ]


class luna_decode_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("precision", ctypes.c_int32),
        ("tiling", ctypes.c_int32),
        ("tile", ctypes.c_uint32),
        ("tile_overlap", ctypes.c_uint32),
        ("scaled", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("memory_limit", ctypes.c_uint64),
        ("call", luna_call),
    ]


class luna_text_load_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("recipe", ctypes.c_char_p),
        ("embedding_folders", ctypes.POINTER(ctypes.c_char_p)),
        ("embedding_folder_count", ctypes.c_size_t),
        ("cache_bytes", ctypes.c_uint64),
        ("tokenizers", ctypes.POINTER(ctypes.c_char_p)),
        ("encoders", ctypes.POINTER(ctypes.c_char_p)),
        ("activations", ctypes.POINTER(ctypes.c_int32)),
    ]


class luna_text(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_cache_usage(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("entries", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("misses", ctypes.c_uint64),
    ]


class luna_encoder_info(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("kind", ctypes.c_char_p),
        ("layers", ctypes.c_uint64),
        ("channels", ctypes.c_uint64),
        ("vocabulary", ctypes.c_uint64),
    ]


class luna_text_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("precision", ctypes.c_int32),
        ("clip_skip", ctypes.c_uint32),
        ("break_chunks", ctypes.c_uint32),
        ("square_brackets", ctypes.c_uint32),
        ("t5_mask", ctypes.c_uint32),
        ("t5_tokens", ctypes.c_uint32),
        ("call", luna_call),
        ("loras", luna_loras),
        ("attention", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("lora_tags", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint32),
        ("clip_l_prompts", ctypes.POINTER(ctypes.c_char_p)),
        ("clip_g_prompts", ctypes.POINTER(ctypes.c_char_p)),
        ("t5_prompts", ctypes.POINTER(ctypes.c_char_p)),
        ("attention_mask", ctypes.POINTER(luna_view)),
    ]


class luna_conditioning(ctypes.Structure):
    _fields_ = [
        ("tokens", luna_tensor),
        ("pooled", luna_tensor),
        ("mask", luna_tensor),
        ("problems", luna_list),
    ]


class luna_token(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("encoder", ctypes.c_char_p),
        ("chunk", ctypes.c_uint64),
        ("id", ctypes.c_int64),
        ("weight", ctypes.c_double),
        ("embedding", ctypes.c_char_p),
        ("row", ctypes.c_uint64),
    ]


class luna_problem(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("encoder", ctypes.c_char_p),
        ("text", ctypes.c_char_p),
    ]


class luna_model_load_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("attention", ctypes.c_int32),
        ("precision", ctypes.c_int32),
    ]


class luna_model(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_model_info(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("family", ctypes.c_char_p),
        ("input_channels", ctypes.c_uint64),
        ("output_channels", ctypes.c_uint64),
        ("context_width", ctypes.c_uint64),
        ("y_width", ctypes.c_uint64),
        ("takes_guidance", ctypes.c_uint32),
        ("size_multiple", ctypes.c_uint32),
        ("last_timestep", ctypes.c_float),
        ("reserved", ctypes.c_uint32),
        ("weight_bytes", ctypes.c_uint64),
    ]


class luna_forward_input(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("x", ctypes.POINTER(luna_view)),
        ("timesteps", ctypes.POINTER(luna_view)),
        ("context", ctypes.POINTER(luna_view)),
        ("y", ctypes.POINTER(luna_view)),
        ("guidance", ctypes.POINTER(luna_view)),
        ("control_input", ctypes.POINTER(ctypes.POINTER(luna_view))),
        ("control_input_count", ctypes.c_size_t),
        ("control_middle", ctypes.POINTER(ctypes.POINTER(luna_view))),
        ("control_middle_count", ctypes.c_size_t),
        ("control_output", ctypes.POINTER(ctypes.POINTER(luna_view))),
        ("control_output_count", ctypes.c_size_t),
    ]


class luna_forward_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("precision", ctypes.c_int32),
        ("attention", ctypes.c_int32),
        ("call", luna_call),
        ("loras", luna_loras),
        ("cache_sequence", ctypes.c_char_p),
        ("cache_threshold", ctypes.c_float),
        ("cache_start_percent", ctypes.c_float),
        ("cache_end_percent", ctypes.c_float),
        ("cache_max_hits", ctypes.c_uint32),
    ]


class luna_picture_sizes(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("crop_left", ctypes.c_uint32),
        ("crop_top", ctypes.c_uint32),
        ("target_width", ctypes.c_uint32),
        ("target_height", ctypes.c_uint32),
    ]


class luna_noise_level(ctypes.Structure):
    _fields_ = [
        ("timestep", ctypes.c_float),
        ("sigma", ctypes.c_float),
    ]


class luna_vision(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_vision_load_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("activation", ctypes.c_int32),
        ("preprocessing", ctypes.c_uint32),
        ("resize", ctypes.c_int32),
        ("filter", ctypes.c_int32),
        ("resize_height", ctypes.c_uint32),
        ("resize_width", ctypes.c_uint32),
        ("crop_height", ctypes.c_uint32),
        ("crop_width", ctypes.c_uint32),
        ("rescale", ctypes.c_float),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    ]


class luna_vision_info(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("kind", ctypes.c_char_p),
        ("image_size", ctypes.c_uint64),
        ("patch_size", ctypes.c_uint64),
        ("layers", ctypes.c_uint64),
        ("channels", ctypes.c_uint64),
        ("tokens", ctypes.c_uint64),
        ("embedding", ctypes.c_uint64),
        ("weight_bytes", ctypes.c_uint64),
    ]


class luna_vision_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("precision", ctypes.c_int32),
        ("part", ctypes.c_uint32),
        ("top", ctypes.c_uint32),
        ("left", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("call", luna_call),
    ]


class luna_features(ctypes.Structure):
    _fields_ = [
        ("last_hidden_state", luna_tensor),
        ("penultimate", luna_tensor),
        ("pooler_output", luna_tensor),
        ("image_embeds", luna_tensor),
    ]


class luna_generated(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("text", ctypes.c_char_p),
        ("ids", ctypes.POINTER(ctypes.c_uint32)),
        ("id_count", ctypes.c_size_t),
        ("prompt_tokens", ctypes.c_uint64),
        ("picture_tokens", ctypes.c_uint64),
        ("finish", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("cache_bytes", ctypes.c_uint64),
        ("prompt_nanoseconds", ctypes.c_uint64),
        ("token_nanoseconds", ctypes.c_uint64),
    ]


class luna_vlm_load_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("tokenizer", ctypes.c_char_p),
        ("projector", ctypes.c_char_p),
    ]


class luna_vlm(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
    ]


class luna_vlm_info(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("family", ctypes.c_char_p),
        ("layers", ctypes.c_uint64),
        ("vision_layers", ctypes.c_uint64),
        ("channels", ctypes.c_uint64),
        ("vocabulary", ctypes.c_uint64),
        ("context", ctypes.c_uint64),
        ("has_tokenizer", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("weight_bytes", ctypes.c_uint64),
    ]


class luna_message_part(ctypes.Structure):
    _fields_ = [
        ("text", ctypes.c_char_p),
        ("image", ctypes.POINTER(luna_view)),
    ]


class luna_message(ctypes.Structure):
    _fields_ = [
        ("role", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("parts", ctypes.POINTER(luna_message_part)),
        ("part_count", ctypes.c_size_t),
    ]


class luna_question(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("prompt", ctypes.c_char_p),
        ("system", ctypes.c_char_p),
        ("images", ctypes.POINTER(ctypes.POINTER(luna_view))),
        ("image_count", ctypes.c_size_t),
        ("messages", ctypes.POINTER(luna_message)),
        ("message_count", ctypes.c_size_t),
        ("input_ids", ctypes.POINTER(luna_view)),
        ("pixel_values", ctypes.POINTER(luna_view)),
        ("image_grid_thw", ctypes.POINTER(luna_view)),
    ]


class luna_generate_options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("precision", ctypes.c_int32),
        ("max_tokens", ctypes.c_uint32),
        ("temperature", ctypes.c_float),
        ("top_k", ctypes.c_uint32),
        ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float),
        ("repetition_penalty", ctypes.c_float),
        ("ignore_end", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("stop", ctypes.POINTER(ctypes.c_char_p)),
        ("stop_count", ctypes.c_size_t),
        ("piece", luna_piece_function),
        ("user_data", ctypes.c_void_p),
        ("call", luna_call),
        ("loras", luna_loras),
    ]


class luna_save_image(ctypes.Structure):
    _fields_ = [
        ("pixels", ctypes.POINTER(luna_view)),
        ("affix", ctypes.c_char_p),
        ("format", ctypes.c_int32),
        ("quality", ctypes.c_int32),
        ("level", ctypes.c_int32),
        ("subfolder", ctypes.c_uint32),
    ]


class luna_save_job(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("images", ctypes.POINTER(luna_save_image)),
        ("image_count", ctypes.c_size_t),
        ("folder", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("model_path", ctypes.c_char_p),
        ("prompt", ctypes.c_char_p),
        ("seed", ctypes.c_uint64),
        ("has_seed", ctypes.c_uint32),
        ("utc_offset_minutes", ctypes.c_int32),
        ("index", ctypes.c_uint64),
        ("metadata_keys", ctypes.POINTER(ctypes.c_char_p)),
        ("metadata_texts", ctypes.POINTER(ctypes.c_char_p)),
        ("metadata_count", ctypes.c_size_t),
        ("gate", ctypes.c_int32),
        ("drop_rejects", ctypes.c_uint32),
        ("gate_threshold", ctypes.c_double),
        ("if_exists", ctypes.c_int32),
        ("busy_when_full", ctypes.c_uint32),
        ("durable", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class luna_save_status(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("id", ctypes.c_uint64),
        ("state", ctypes.c_int32),
        ("durable", ctypes.c_uint32),
        ("pictures", ctypes.c_uint64),
        ("written", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
        ("rejected", ctypes.c_uint64),
        ("cancelled", ctypes.c_uint64),
    ]


class luna_save_picture(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("image", ctypes.c_uint64),
        ("index", ctypes.c_uint64),
        ("state", ctypes.c_int32),
        ("status", ctypes.c_int32),
        ("path", ctypes.c_char_p),
        ("sha256", ctypes.c_char_p),
        ("bytes", ctypes.c_uint64),
        ("error", ctypes.c_char_p),
        ("score", ctypes.c_double),
    ]


def declare(library: Any) -> None:
    """States what every function takes and gives."""
    library.luna_abi_version.argtypes = []
    library.luna_abi_version.restype = ctypes.c_uint32
    library.luna_version.argtypes = []
    library.luna_version.restype = ctypes.c_char_p
    library.luna_status_name.argtypes = [ctypes.c_int32]
    library.luna_status_name.restype = ctypes.c_char_p
    library.luna_last_error.argtypes = [ctypes.POINTER(luna_error)]
    library.luna_last_error.restype = ctypes.c_int32
    library.luna_call_new.argtypes = [ctypes.POINTER(luna_call_options), ctypes.POINTER(luna_call)]
    library.luna_call_new.restype = ctypes.c_int32
    library.luna_call_cancel.argtypes = [luna_call]
    library.luna_call_cancel.restype = ctypes.c_int32
    library.luna_call_free.argtypes = [luna_call]
    library.luna_call_free.restype = ctypes.c_int32
    library.luna_open.argtypes = [ctypes.POINTER(luna_open_options), ctypes.POINTER(luna_session)]
    library.luna_open.restype = ctypes.c_int32
    library.luna_connect.argtypes = [ctypes.c_char_p, ctypes.POINTER(luna_connect_options), ctypes.POINTER(luna_session)]
    library.luna_connect.restype = ctypes.c_int32
    library.luna_close.argtypes = [luna_session]
    library.luna_close.restype = ctypes.c_int32
    library.luna_get_stats.argtypes = [luna_session, ctypes.POINTER(luna_stats)]
    library.luna_get_stats.restype = ctypes.c_int32
    library.luna_list_residents.argtypes = [luna_session, ctypes.POINTER(luna_list)]
    library.luna_list_residents.restype = ctypes.c_int32
    library.luna_list_resident.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_resident)]
    library.luna_list_resident.restype = ctypes.c_int32
    library.luna_pin.argtypes = [luna_session, ctypes.c_char_p, ctypes.c_uint32]
    library.luna_pin.restype = ctypes.c_int32
    library.luna_unload.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int32)]
    library.luna_unload.restype = ctypes.c_int32
    library.luna_trim.argtypes = [luna_session]
    library.luna_trim.restype = ctypes.c_int32
    library.luna_list_count.argtypes = [luna_list, ctypes.POINTER(ctypes.c_size_t)]
    library.luna_list_count.restype = ctypes.c_int32
    library.luna_list_free.argtypes = [luna_list]
    library.luna_list_free.restype = ctypes.c_int32
    library.luna_tensor_view.argtypes = [luna_tensor, ctypes.POINTER(luna_view)]
    library.luna_tensor_view.restype = ctypes.c_int32
    library.luna_tensor_free.argtypes = [luna_tensor]
    library.luna_tensor_free.restype = ctypes.c_int32
    library.luna_tensor_to_dlpack.argtypes = [luna_tensor, ctypes.POINTER(ctypes.c_void_p)]
    library.luna_tensor_to_dlpack.restype = ctypes.c_int32
    library.luna_view_from_dlpack.argtypes = [ctypes.c_void_p, ctypes.POINTER(luna_view)]
    library.luna_view_from_dlpack.restype = ctypes.c_int32
    library.luna_picture_read.argtypes = [ctypes.c_char_p, ctypes.POINTER(luna_tensor)]
    library.luna_picture_read.restype = ctypes.c_int32
    library.luna_inspect.argtypes = [ctypes.c_char_p, ctypes.POINTER(luna_list)]
    library.luna_inspect.restype = ctypes.c_int32
    library.luna_list_component.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_component)]
    library.luna_list_component.restype = ctypes.c_int32
    library.luna_list_lora_file.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_lora_file)]
    library.luna_list_lora_file.restype = ctypes.c_int32
    library.luna_list_lora_adapter.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_lora_adapter)]
    library.luna_list_lora_adapter.restype = ctypes.c_int32
    library.luna_loras_list_tags.argtypes = [luna_loras, ctypes.POINTER(luna_list)]
    library.luna_loras_list_tags.restype = ctypes.c_int32
    library.luna_list_lora_tag.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_lora_tag)]
    library.luna_list_lora_tag.restype = ctypes.c_int32
    library.luna_loras_new.argtypes = [luna_session, ctypes.POINTER(luna_lora), ctypes.c_size_t, ctypes.POINTER(luna_loras_options), ctypes.POINTER(luna_loras)]
    library.luna_loras_new.restype = ctypes.c_int32
    library.luna_loras_list_files.argtypes = [luna_loras, ctypes.POINTER(luna_list)]
    library.luna_loras_list_files.restype = ctypes.c_int32
    library.luna_loras_list_adapters.argtypes = [luna_loras, ctypes.POINTER(luna_list)]
    library.luna_loras_list_adapters.restype = ctypes.c_int32
    library.luna_loras_free.argtypes = [luna_loras]
    library.luna_loras_free.restype = ctypes.c_int32
    library.luna_list_loras.argtypes = [luna_session, ctypes.POINTER(luna_list)]
    library.luna_list_loras.restype = ctypes.c_int32
    library.luna_list_lora_name.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_lora_name)]
    library.luna_list_lora_name.restype = ctypes.c_int32
    library.luna_vae_load.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(luna_vae)]
    library.luna_vae_load.restype = ctypes.c_int32
    library.luna_vae_load_with.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(luna_vae_load_options), ctypes.POINTER(luna_vae)]
    library.luna_vae_load_with.restype = ctypes.c_int32
    library.luna_vae_get_info.argtypes = [luna_vae, ctypes.POINTER(luna_vae_info)]
    library.luna_vae_get_info.restype = ctypes.c_int32
    library.luna_vae_encode.argtypes = [luna_vae, ctypes.POINTER(luna_view), ctypes.POINTER(luna_encode_options), ctypes.POINTER(luna_tensor), ctypes.POINTER(luna_report)]
    library.luna_vae_encode.restype = ctypes.c_int32
    library.luna_vae_decode.argtypes = [luna_vae, ctypes.POINTER(luna_view), ctypes.POINTER(luna_decode_options), ctypes.POINTER(luna_tensor), ctypes.POINTER(luna_report)]
    library.luna_vae_decode.restype = ctypes.c_int32
    library.luna_vae_free.argtypes = [luna_vae]
    library.luna_vae_free.restype = ctypes.c_int32
    library.luna_text_load.argtypes = [luna_session, ctypes.POINTER(ctypes.c_char_p), ctypes.c_size_t, ctypes.POINTER(luna_text_load_options), ctypes.POINTER(luna_text)]
    library.luna_text_load.restype = ctypes.c_int32
    library.luna_text_get_cache_usage.argtypes = [luna_text, ctypes.POINTER(luna_cache_usage)]
    library.luna_text_get_cache_usage.restype = ctypes.c_int32
    library.luna_text_clear_cache.argtypes = [luna_text]
    library.luna_text_clear_cache.restype = ctypes.c_int32
    library.luna_text_list_encoders.argtypes = [luna_text, ctypes.POINTER(luna_list)]
    library.luna_text_list_encoders.restype = ctypes.c_int32
    library.luna_list_encoder.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_encoder_info)]
    library.luna_list_encoder.restype = ctypes.c_int32
    library.luna_text_tokenize.argtypes = [luna_text, ctypes.c_char_p, ctypes.POINTER(luna_text_options), ctypes.POINTER(luna_list), ctypes.POINTER(luna_list)]
    library.luna_text_tokenize.restype = ctypes.c_int32
    library.luna_text_encode.argtypes = [luna_text, ctypes.POINTER(ctypes.c_char_p), ctypes.c_size_t, ctypes.POINTER(luna_text_options), ctypes.POINTER(luna_conditioning), ctypes.POINTER(luna_report)]
    library.luna_text_encode.restype = ctypes.c_int32
    library.luna_text_encode_ids.argtypes = [luna_text, ctypes.POINTER(luna_view), ctypes.POINTER(luna_text_options), ctypes.POINTER(luna_conditioning), ctypes.POINTER(luna_report)]
    library.luna_text_encode_ids.restype = ctypes.c_int32
    library.luna_conditioning_free.argtypes = [luna_conditioning]
    library.luna_conditioning_free.restype = ctypes.c_int32
    library.luna_text_free.argtypes = [luna_text]
    library.luna_text_free.restype = ctypes.c_int32
    library.luna_list_token.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_token)]
    library.luna_list_token.restype = ctypes.c_int32
    library.luna_list_problem.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_problem)]
    library.luna_list_problem.restype = ctypes.c_int32
    library.luna_model_load.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(luna_model_load_options), ctypes.POINTER(luna_model)]
    library.luna_model_load.restype = ctypes.c_int32
    library.luna_model_get_info.argtypes = [luna_model, ctypes.POINTER(luna_model_info)]
    library.luna_model_get_info.restype = ctypes.c_int32
    library.luna_model_forward.argtypes = [luna_model, ctypes.POINTER(luna_forward_input), ctypes.POINTER(luna_forward_options), ctypes.POINTER(luna_tensor), ctypes.POINTER(luna_report)]
    library.luna_model_forward.restype = ctypes.c_int32
    library.luna_model_free.argtypes = [luna_model]
    library.luna_model_free.restype = ctypes.c_int32
    library.luna_model_pooled.argtypes = [luna_model, ctypes.POINTER(luna_view), ctypes.POINTER(luna_picture_sizes), ctypes.POINTER(luna_tensor)]
    library.luna_model_pooled.restype = ctypes.c_int32
    library.luna_noise_levels.argtypes = [ctypes.c_size_t, ctypes.POINTER(luna_noise_level)]
    library.luna_noise_levels.restype = ctypes.c_int32
    library.luna_steps_forget.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t)]
    library.luna_steps_forget.restype = ctypes.c_int32
    library.luna_vision_load.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(luna_vision)]
    library.luna_vision_load.restype = ctypes.c_int32
    library.luna_vision_load_with.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(luna_vision_load_options), ctypes.POINTER(luna_vision)]
    library.luna_vision_load_with.restype = ctypes.c_int32
    library.luna_vision_get_info.argtypes = [luna_vision, ctypes.POINTER(luna_vision_info)]
    library.luna_vision_get_info.restype = ctypes.c_int32
    library.luna_vision_encode.argtypes = [luna_vision, ctypes.POINTER(ctypes.POINTER(luna_view)), ctypes.c_size_t, ctypes.POINTER(luna_vision_options), ctypes.POINTER(luna_features), ctypes.POINTER(luna_report)]
    library.luna_vision_encode.restype = ctypes.c_int32
    library.luna_vision_encode_pixels.argtypes = [luna_vision, ctypes.POINTER(luna_view), ctypes.POINTER(luna_vision_options), ctypes.POINTER(luna_features), ctypes.POINTER(luna_report)]
    library.luna_vision_encode_pixels.restype = ctypes.c_int32
    library.luna_features_free.argtypes = [luna_features]
    library.luna_features_free.restype = ctypes.c_int32
    library.luna_vision_free.argtypes = [luna_vision]
    library.luna_vision_free.restype = ctypes.c_int32
    library.luna_list_generated.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_generated)]
    library.luna_list_generated.restype = ctypes.c_int32
    library.luna_vlm_load.argtypes = [luna_session, ctypes.c_char_p, ctypes.POINTER(luna_vlm_load_options), ctypes.POINTER(luna_vlm)]
    library.luna_vlm_load.restype = ctypes.c_int32
    library.luna_vlm_get_info.argtypes = [luna_vlm, ctypes.POINTER(luna_vlm_info)]
    library.luna_vlm_get_info.restype = ctypes.c_int32
    library.luna_vlm_generate.argtypes = [luna_vlm, ctypes.POINTER(luna_question), ctypes.POINTER(luna_generate_options), ctypes.POINTER(luna_list), ctypes.POINTER(luna_report)]
    library.luna_vlm_generate.restype = ctypes.c_int32
    library.luna_vlm_free.argtypes = [luna_vlm]
    library.luna_vlm_free.restype = ctypes.c_int32
    library.luna_save_submit.argtypes = [luna_session, ctypes.POINTER(luna_save_job), ctypes.POINTER(ctypes.c_uint64)]
    library.luna_save_submit.restype = ctypes.c_int32
    library.luna_save_wait.argtypes = [luna_session, ctypes.c_uint64, ctypes.c_int64, ctypes.POINTER(luna_save_status)]
    library.luna_save_wait.restype = ctypes.c_int32
    library.luna_save_list_pictures.argtypes = [luna_session, ctypes.c_uint64, ctypes.POINTER(luna_list)]
    library.luna_save_list_pictures.restype = ctypes.c_int32
    library.luna_list_picture.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_save_picture)]
    library.luna_list_picture.restype = ctypes.c_int32
    library.luna_save_list_jobs.argtypes = [luna_session, ctypes.POINTER(luna_list)]
    library.luna_save_list_jobs.restype = ctypes.c_int32
    library.luna_list_job.argtypes = [luna_list, ctypes.c_size_t, ctypes.POINTER(luna_save_status)]
    library.luna_list_job.restype = ctypes.c_int32
    library.luna_save_cancel.argtypes = [luna_session, ctypes.c_uint64]
    library.luna_save_cancel.restype = ctypes.c_int32
