/* Luna: one frozen copy of each model, served to many callers. Generated from luna-ffi; see CONTRIBUTING.md.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * THE CONTRACT
 *
 * Status. Every function that can fail returns a luna_status; on anything but LUNA_STATUS_OK its results are not
 * written. What went wrong, what was expected, what was found and what to do is at luna_last_error, for each thread.
 *
 * Handles. luna_session, luna_vae and the like are values: copy and compare them freely. A handle that is all zero stands
 * for none. A handle that was freed, is of another type or comes from another copy of the library is
 * LUNA_STATUS_INVALID_HANDLE, never a crash. You free what you were given, each once, in any order. Freeing a handle that
 * another thread is using is safe: its call ends first.
 *
 * Structs. Options begin with their size, and zeros are the defaults:
 *     luna_encode_options options = {0};
 *     options.size = sizeof options;
 * Where a function takes options or gives a report, NULL is allowed if its comment says so. Structs grow at their end only,
 * so that programs and libraries of different age fit; a field that is set and that the library does not know is
 * LUNA_STATUS_UNSUPPORTED.
 *
 * Memory. What you pass is yours, and Luna looks at it only while the call runs. What Luna gives is Luna's: look at it until
 * you free the handle it belongs to. Nobody frees what the other allocated. Pointers are NULL, or lead to what is said of
 * them: this alone cannot be checked.
 *
 * Arrays. A luna_view says where an array lies. Aligned, row-major f32 is never copied; any other layout and dtype is, and
 * luna_report tells how many bytes that took.
 *
 * Calls. A luna_call in a call's options cancels it from any thread, hears its progress and gives it a deadline.
 *
 * Threads. Any function from any thread, at any time. Callbacks come from any thread; they may call any function, and must
 * not throw, nor leave by longjmp.
 *
 * Text is UTF-8 and ends with NUL, paths among it.
 *
 * Globals. The library has no settings of its own, reads no environment, prints nothing. Two copies may be loaded at once.
 *
 * Growth. Functions, numbers and struct fields are added, never changed or taken away, within one major number of
 * luna_abi_version.
 */


#ifndef LUNA_H
#define LUNA_H

/* Do not edit: cargo run -p luna-ffi --example header > include/luna.h */

#include <stddef.h>
#include <stdint.h>

/**
 * The ABI that this header describes. Another major number means that functions, numbers or structs changed their
 * meaning; a higher minor number, that there are more of them.
 */
#define LUNA_ABI_MAJOR 1

/**
 * See `LUNA_ABI_MAJOR`.
 */
#define LUNA_ABI_MINOR 3

/**
 * The most dimensions of an array.
 */
#define LUNA_MAX_RANK 8

/**
 * Done in tiles, because memory would not have sufficed for one piece: a bit of `luna_report.fallbacks`.
 */
#define LUNA_FALLBACK_TILED 1

/**
 * Done again in f32, because half precision gave NaN or infinity: a bit of `luna_report.fallbacks`.
 */
#define LUNA_FALLBACK_WIDENED 2

/**
 * What a function answers: `LUNA_STATUS_OK`, or whose fault it is that there is no result. A number never changes its
 * meaning, and one that is no longer used is never given to something else. Treat a number that you do not know as
 * `LUNA_STATUS_INTERNAL`.
 */
enum luna_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    LUNA_STATUS_OK = 0,
    /**
     * An argument is wrong: shape, range, combination, NULL. The caller can correct it.
     */
    LUNA_STATUS_INVALID_INPUT = 1,
    /**
     * A file is damaged or hostile.
     */
    LUNA_STATUS_INVALID_FILE = 2,
    /**
     * The file is sound, but Luna has no use for it; or this build of the library cannot do what was asked.
     */
    LUNA_STATUS_UNSUPPORTED = 3,
    /**
     * No such file, model, LoRA, job or tensor.
     */
    LUNA_STATUS_NOT_FOUND = 4,
    /**
     * The system refused: permissions, disk full, connection lost.
     */
    LUNA_STATUS_IO = 5,
    /**
     * Something from outside is larger than the limit that was set for it.
     */
    LUNA_STATUS_LIMIT_EXCEEDED = 6,
    /**
     * Memory did not suffice.
     */
    LUNA_STATUS_OUT_OF_MEMORY = 7,
    /**
     * The caller cancelled.
     */
    LUNA_STATUS_CANCELLED = 8,
    /**
     * Too much is waiting already; try again later.
     */
    LUNA_STATUS_BUSY = 9,
    /**
     * The input or the result holds NaN or infinity.
     */
    LUNA_STATUS_NON_FINITE = 10,
    /**
     * The device is missing or failed.
     */
    LUNA_STATUS_DEVICE = 11,
    /**
     * A fault of Luna's own. Please report it.
     */
    LUNA_STATUS_INTERNAL = 12,
    /**
     * The handle was freed, was never given, belongs to another copy of the library, or is of another type.
     */
    LUNA_STATUS_INVALID_HANDLE = 100,
    /**
     * The deadline of `luna_call_options` passed before the call was done.
     */
    LUNA_STATUS_DEADLINE = 101,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_status luna_status;
#else
typedef int32_t luna_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The type of an array's elements.
 */
enum luna_dtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * 32-bit floats, in which Luna computes: no copy is made.
     */
    LUNA_DTYPE_F32 = 0,
    /**
     * IEEE half.
     */
    LUNA_DTYPE_F16 = 1,
    /**
     * bfloat16.
     */
    LUNA_DTYPE_BF16 = 2,
    /**
     * 64-bit floats.
     */
    LUNA_DTYPE_F64 = 3,
    /**
     * Bytes: 0..255 of a picture stand for 0..1.
     */
    LUNA_DTYPE_U8 = 4,
    /**
     * One byte each, 0 or 1.
     */
    LUNA_DTYPE_BOOL = 5,
    /**
     * 32-bit signed integers.
     */
    LUNA_DTYPE_I32 = 6,
    /**
     * 64-bit signed integers.
     */
    LUNA_DTYPE_I64 = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_dtype luna_dtype;
#else
typedef int32_t luna_dtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The precision of activations. Sums are accumulated in f32 whatever it is.
 */
enum luna_precision
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * 32-bit floats: the default.
     */
    LUNA_PRECISION_F32 = 0,
    /**
     * bfloat16.
     */
    LUNA_PRECISION_BF16 = 1,
    /**
     * IEEE half.
     */
    LUNA_PRECISION_F16 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_precision luna_precision;
#else
typedef int32_t luna_precision;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How attention is computed. All give the same within rounding.
 */
enum luna_attention
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * As the model was loaded with; at load, `LUNA_ATTENTION_AUTO`.
     */
    LUNA_ATTENTION_DEFAULT = 0,
    /**
     * The fastest for the device.
     */
    LUNA_ATTENTION_AUTO = 1,
    /**
     * Chunks of queries by chunks of keys with a running softmax.
     */
    LUNA_ATTENTION_FLASH = 2,
    /**
     * Chunks of queries by all keys.
     */
    LUNA_ATTENTION_SPLIT = 3,
    /**
     * The whole score matrix at once.
     */
    LUNA_ATTENTION_PYTORCH = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_attention luna_attention;
#else
typedef int32_t luna_attention;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a line of the log matters.
 */
enum luna_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Something was done as asked.
     */
    LUNA_LOG_LEVEL_INFO = 0,
    /**
     * Something was done otherwise than asked.
     */
    LUNA_LOG_LEVEL_WARNING = 1,
    /**
     * Something failed.
     */
    LUNA_LOG_LEVEL_ERROR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_log_level luna_log_level;
#else
typedef int32_t luna_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What became of `luna_unload`.
 */
enum luna_unloaded
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Its memory is free.
     */
    LUNA_UNLOADED_FREED = 0,
    /**
     * Handles hold it still: its memory is freed with the last of them, and no new one gets it.
     */
    LUNA_UNLOADED_WHEN_RETURNED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_unloaded luna_unloaded;
#else
typedef int32_t luna_unloaded;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether a picture is worked on in tiles.
 */
enum luna_tiling
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * In one piece if the memory suffices, else in the largest tiles that fit.
     */
    LUNA_TILING_AUTO = 0,
    /**
     * In one piece, or not at all.
     */
    LUNA_TILING_NEVER = 1,
    /**
     * In tiles of the given size.
     */
    LUNA_TILING_ALWAYS = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_tiling luna_tiling;
#else
typedef int32_t luna_tiling;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What becomes of picture sides that the VAE's factor does not divide.
 */
enum luna_size_rule
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Crops to the next smaller multiple, about the centre.
     */
    LUNA_SIZE_RULE_CROP = 0,
    /**
     * Repeats the last row and column up to the next larger multiple.
     */
    LUNA_SIZE_RULE_PAD = 1,
    /**
     * Answers `LUNA_STATUS_INVALID_INPUT`.
     */
    LUNA_SIZE_RULE_REFUSE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_size_rule luna_size_rule;
#else
typedef int32_t luna_size_rule;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A picture file format.
 */
enum luna_format
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * PNG, 8 bits.
     */
    LUNA_FORMAT_PNG = 0,
    /**
     * PNG, 16 bits.
     */
    LUNA_FORMAT_PNG16 = 1,
    /**
     * WebP with loss.
     */
    LUNA_FORMAT_WEBP = 2,
    /**
     * WebP without loss.
     */
    LUNA_FORMAT_WEBP_LOSSLESS = 3,
    /**
     * JPEG.
     */
    LUNA_FORMAT_JPEG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_format luna_format;
#else
typedef int32_t luna_format;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happens where a file of the name exists.
 */
enum luna_if_exists
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The next free number is added.
     */
    LUNA_IF_EXISTS_NUMBER = 0,
    /**
     * The picture fails; the file stays.
     */
    LUNA_IF_EXISTS_REFUSE = 1,
    /**
     * The picture takes its place.
     */
    LUNA_IF_EXISTS_REPLACE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_if_exists luna_if_exists;
#else
typedef int32_t luna_if_exists;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which scores a picture must reach to be kept.
 */
enum luna_gate
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * None.
     */
    LUNA_GATE_DISABLED = 0,
    /**
     * That of its variance.
     */
    LUNA_GATE_VARIANCE = 1,
    /**
     * That of its edges.
     */
    LUNA_GATE_EDGE_DENSITY = 2,
    /**
     * Each of them.
     */
    LUNA_GATE_BOTH = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_gate luna_gate;
#else
typedef int32_t luna_gate;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How far a save job has come. From `LUNA_SAVE_STATE_DONE` on it is finished.
 */
enum luna_save_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * No picture was begun.
     */
    LUNA_SAVE_STATE_QUEUED = 0,
    /**
     * Some picture was begun, and some has no fate yet.
     */
    LUNA_SAVE_STATE_WRITING = 1,
    /**
     * Every picture was written.
     */
    LUNA_SAVE_STATE_DONE = 2,
    /**
     * Some picture failed.
     */
    LUNA_SAVE_STATE_FAILED = 3,
    /**
     * None failed, and a gate rejected some.
     */
    LUNA_SAVE_STATE_REJECTED = 4,
    /**
     * None failed, and some were cancelled.
     */
    LUNA_SAVE_STATE_CANCELLED = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_save_state luna_save_state;
#else
typedef int32_t luna_save_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How LoRAs are applied. The results are the same but for rounding.
 */
enum luna_lora_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * With each call, layer by layer; nothing is kept and nobody waits.
     */
    LUNA_LORA_MODE_FUNCTIONAL = 0,
    /**
     * Merged with a copy of the patched layers by the first call. The copy is kept until the stack is freed; meanwhile
     * another stack's call in this mode is `LUNA_STATUS_BUSY` on the same model.
     */
    LUNA_LORA_MODE_MERGED = 1,
    /**
     * Merged if so many calls will follow that it pays, there is room, and nobody has to wait; else functional.
     */
    LUNA_LORA_MODE_AUTO = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_lora_mode luna_lora_mode;
#else
typedef int32_t luna_lora_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why `LUNA_LORA_MODE_AUTO` did not merge.
 */
enum luna_not_merged
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It did, or was not asked to.
     */
    LUNA_NOT_MERGED_NONE = 0,
    /**
     * Too few calls will follow, or it was not said how many.
     */
    LUNA_NOT_MERGED_FEW_FORWARDS = 1,
    /**
     * The copy would be larger than the session's `merged_bytes`.
     */
    LUNA_NOT_MERGED_NO_ROOM = 2,
    /**
     * Another stack's copy of this model is in use.
     */
    LUNA_NOT_MERGED_IN_USE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_not_merged luna_not_merged;
#else
typedef int32_t luna_not_merged;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What became of one adapter of a LoRA file.
 */
enum luna_lora_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It found its layers.
     */
    LUNA_LORA_OUTCOME_APPLIED = 0,
    /**
     * It is for this model, and there is no such layer.
     */
    LUNA_LORA_OUTCOME_UNMATCHED = 1,
    /**
     * Its sizes do not fit its layer.
     */
    LUNA_LORA_OUTCOME_WRONG_SHAPE = 2,
    /**
     * Luna cannot apply it.
     */
    LUNA_LORA_OUTCOME_UNSUPPORTED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_lora_outcome luna_lora_outcome;
#else
typedef int32_t luna_lora_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which convention DoRA's magnitudes follow.
 */
enum luna_dora
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The one that the file's names tell.
     */
    LUNA_DORA_BY_NAMES = 0,
    /**
     * ComfyUI's.
     */
    LUNA_DORA_COMFYUI = 1,
    /**
     * PEFT's, and LyCORIS' with `wd_on_out`.
     */
    LUNA_DORA_PEFT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_dora luna_dora;
#else
typedef int32_t luna_dora;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why generation ended.
 */
enum luna_finish
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The model ended its turn.
     */
    LUNA_FINISH_END_OF_TURN = 0,
    /**
     * A stop text was reached.
     */
    LUNA_FINISH_STOP_STRING = 1,
    /**
     * As many tokens as were asked for.
     */
    LUNA_FINISH_MAX_TOKENS = 2,
    /**
     * As many tokens as the model was trained for.
     */
    LUNA_FINISH_CONTEXT_FULL = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_finish luna_finish;
#else
typedef int32_t luna_finish;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Who speaks.
 */
enum luna_role
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The caller.
     */
    LUNA_ROLE_USER = 0,
    /**
     * The model.
     */
    LUNA_ROLE_ASSISTANT = 1,
    /**
     * Instructions that stand above the conversation.
     */
    LUNA_ROLE_SYSTEM = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_role luna_role;
#else
typedef int32_t luna_role;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which halves of a VAE are loaded.
 */
enum luna_halves
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Encoder and decoder.
     */
    LUNA_HALVES_BOTH = 0,
    /**
     * Only the encoder: decoding is refused.
     */
    LUNA_HALVES_ENCODER = 1,
    /**
     * Only the decoder: encoding is refused.
     */
    LUNA_HALVES_DECODER = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_halves luna_halves;
#else
typedef int32_t luna_halves;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The activation between the two layers of a CLIP's feed-forward blocks.
 */
enum luna_clip_activation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * What `config.json` states, else what its kind has.
     */
    LUNA_CLIP_ACTIVATION_BY_FILE = 0,
    /**
     * `x * sigmoid(1.702 x)`: OpenAI's models.
     */
    LUNA_CLIP_ACTIVATION_QUICK_GELU = 1,
    /**
     * The exact GELU: OpenCLIP's models.
     */
    LUNA_CLIP_ACTIVATION_GELU = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_clip_activation luna_clip_activation;
#else
typedef int32_t luna_clip_activation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The activation between the two layers of a vision encoder's feed-forward blocks.
 */
enum luna_vision_activation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * What `config.json` states, else what an encoder of its size has.
     */
    LUNA_VISION_ACTIVATION_BY_FILE = 0,
    /**
     * `x * sigmoid(1.702 x)`: OpenAI's CLIPs.
     */
    LUNA_VISION_ACTIVATION_QUICK_GELU = 1,
    /**
     * The exact GELU: OpenCLIP's.
     */
    LUNA_VISION_ACTIVATION_GELU = 2,
    /**
     * GELU's approximation by a hyperbolic tangent: SigLIP.
     */
    LUNA_VISION_ACTIVATION_GELU_TANH = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_vision_activation luna_vision_activation;
#else
typedef int32_t luna_vision_activation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * To which size a picture is brought before anything is cut off.
 */
enum luna_resize
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The shorter side becomes `resize_height` long; the other keeps the aspect.
     */
    LUNA_RESIZE_SHORTEST_EDGE = 0,
    /**
     * Just `resize_height` by `resize_width`, whatever the aspect.
     */
    LUNA_RESIZE_EXACT = 1,
    /**
     * As it is.
     */
    LUNA_RESIZE_KEEP = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_resize luna_resize;
#else
typedef int32_t luna_resize;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a picture is resized.
 */
enum luna_filter
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Cubic convolution.
     */
    LUNA_FILTER_BICUBIC = 0,
    /**
     * Linear between neighbours.
     */
    LUNA_FILTER_BILINEAR = 1,
    /**
     * A windowed sinc over three lobes.
     */
    LUNA_FILTER_LANCZOS = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum luna_filter luna_filter;
#else
typedef int32_t luna_filter;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What went wrong on this thread last. Texts are UTF-8 and belong to Luna; they are valid until another function fails
 * on this thread, or the thread ends. A text that there is nothing to say for is NULL.
 */
typedef struct luna_error {
    /**
     * `sizeof(luna_error)`, set by the caller.
     */
    size_t size;
    /**
     * The status that the function answered; `LUNA_STATUS_OK` if none has failed on this thread.
     */
    int32_t status;
    /**
     * What is wrong.
     */
    const char *message;
    /**
     * What would have been right.
     */
    const char *expected;
    /**
     * What was there instead.
     */
    const char *found;
    /**
     * What the caller can do.
     */
    const char *remedy;
    /**
     * All of it as one sentence.
     */
    const char *text;
} luna_error;

/**
 * Hears how far a call has come: `done` of `total` steps. Called from Luna's threads; should return quickly, and must
 * neither throw nor leave by `longjmp`.
 */
typedef void (*luna_progress_function)(uint64_t done, uint64_t total, void *user_data);

/**
 * Hears what Luna did, one line at a time: loads, fallbacks, retries. `level` is a `luna_log_level`; `message` is valid
 * while the function runs. Called from any thread; should return quickly, and must neither throw nor leave by
 * `longjmp`.
 */
typedef void (*luna_log_function)(int32_t level, const char *message, void *user_data);

/**
 * Options of `luna_call_new`.
 */
typedef struct luna_call_options {
    /**
     * `sizeof(luna_call_options)`.
     */
    size_t size;
    /**
     * Hears the progress of every call; may be NULL.
     */
    luna_progress_function progress;
    /**
     * Hears what these calls did; may be NULL. The session's log hears it, too.
     */
    luna_log_function log;
    /**
     * Handed to both functions.
     */
    void *user_data;
    /**
     * After so many milliseconds each call that has this is ended with `LUNA_STATUS_DEADLINE`, counted from its own start,
     * of a daemon's models from the arrival of its request; 0 for never.
     */
    uint64_t deadline_ms;
} luna_call_options;

/**
 * What a caller holds on to while calls run: cancellation, progress and log. Given by `luna_call_new`, freed by
 * `luna_call_free`.
 */
typedef struct luna_call {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_call;

/**
 * Options of `luna_open`. All zeros but `size` is a good choice.
 */
typedef struct luna_open_options {
    /**
     * `sizeof(luna_open_options)`.
     */
    size_t size;
    /**
     * Threads that compute; 0 for one for each core. They start with the first model.
     */
    uint32_t threads;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * The most bytes of weights in memory: idle models go when another needs room. 0 for no bound.
     */
    uint64_t budget_bytes;
    /**
     * The device that computes, such as `cpu` or `cuda:0`; NULL for `cpu`.
     */
    const char *device;
    /**
     * The folder that pictures are saved below; NULL if none are to be saved. It is made with the first job.
     */
    const char *output_folder;
    /**
     * The folder that durable save jobs are kept in until they are done; NULL for none. One process at a time.
     */
    const char *spool_folder;
    /**
     * Hears what is done in this session; may be NULL.
     */
    luna_log_function log;
    /**
     * Handed to `log`.
     */
    void *user_data;
    /**
     * Folders that LoRAs are looked up in by name, with all folders below them.
     */
    const char *const *lora_folders;
    /**
     * How many there are.
     */
    size_t lora_folder_count;
    /**
     * The most bytes of LoRAs to keep in memory; 0 for 2 GiB.
     */
    uint64_t lora_cache_bytes;
    /**
     * The most bytes of layers merged with LoRAs; 0 for the memory that is available when the first
     * stack is made.
     */
    uint64_t merged_bytes;
    /**
     * The most bytes of the first-block cache, which samplings ask for in `luna_forward_options`; 0 for 256 MiB.
     */
    uint64_t step_cache_bytes;
} luna_open_options;

/**
 * One copy of each model, or a connection to the daemon that has them. Given by `luna_open`, freed by `luna_close`.
 */
typedef struct luna_session {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_session;

/**
 * Options of `luna_connect`. All zeros but `size` is a good choice.
 */
typedef struct luna_connect_options {
    /**
     * `sizeof(luna_connect_options)`.
     */
    size_t size;
    /**
     * Who this is: connections of one name count as one client. NULL for none.
     */
    const char *name;
    /**
     * The daemon's token, where it asks for one; NULL for none.
     */
    const char *token;
    /**
     * For how many milliseconds a daemon that does not answer is tried again.
     */
    uint32_t connect_for_ms;
    /**
     * Whether calls wait where the daemon is busy, instead of `LUNA_STATUS_BUSY`: 0 or 1.
     */
    uint32_t wait_when_busy;
    /**
     * Hears what is done in this session; may be NULL.
     */
    luna_log_function log;
    /**
     * Handed to `log`.
     */
    void *user_data;
} luna_connect_options;

/**
 * What a session holds and has done. What a daemon does not tell is 0.
 */
typedef struct luna_stats {
    /**
     * `sizeof(luna_stats)`, set by the caller.
     */
    size_t size;
    /**
     * Models in memory.
     */
    uint64_t models;
    /**
     * Bytes of their weights.
     */
    uint64_t weight_bytes;
    /**
     * The most bytes of weights allowed.
     */
    uint64_t budget_bytes;
    /**
     * Bytes of memory that this process holds; 0 where the system does not tell.
     */
    uint64_t resident_bytes;
    /**
     * Bytes that can be allocated without swapping; 0 where the system does not tell.
     */
    uint64_t available_bytes;
    /**
     * Threads that compute; 0 before the first model.
     */
    uint64_t threads;
    /**
     * Handles of all kinds that are open in this process.
     */
    uint64_t handles;
    /**
     * Save jobs taken in.
     */
    uint64_t save_jobs;
    /**
     * Save jobs whose every picture has its fate.
     */
    uint64_t save_jobs_finished;
    /**
     * Pictures written.
     */
    uint64_t pictures_written;
    /**
     * Pictures that failed.
     */
    uint64_t pictures_failed;
    /**
     * LoRAs in memory.
     */
    uint64_t loras;
    /**
     * Bytes they take.
     */
    uint64_t lora_bytes;
    /**
     * Bytes of layers that are merged with LoRAs.
     */
    uint64_t merged_bytes;
    /**
     * Samplings in the first-block cache.
     */
    uint64_t step_sequences;
    /**
     * Bytes they take.
     */
    uint64_t step_cache_bytes;
} luna_stats;

/**
 * Several of the same that Luna tells of, with the texts in them. Freed by `luna_list_free`.
 */
typedef struct luna_list {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_list;

/**
 * One model in memory.
 */
typedef struct luna_resident {
    /**
     * `sizeof(luna_resident)`, set by the caller.
     */
    size_t size;
    /**
     * What it is known by: BLAKE3 of its files, 64 hexadecimal digits.
     */
    const char *id;
    /**
     * The path it was first loaded from, or the name of a bundled model.
     */
    const char *path;
    /**
     * Bytes of its weights.
     */
    uint64_t bytes;
    /**
     * Handles that hold it now.
     */
    uint64_t leases;
    /**
     * Whether it is kept although idle: 0 or 1.
     */
    uint32_t pinned;
    /**
     * 0.
     */
    uint32_t reserved;
} luna_resident;

/**
 * Numbers that Luna owns: the result of a call. Freed by `luna_tensor_free`.
 */
typedef struct luna_tensor {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_tensor;

/**
 * An array: a caller's, which Luna only looks at while the call runs, or Luna's, which a caller may look at until it
 * frees what it belongs to.
 */
typedef struct luna_view {
    /**
     * The element with all indices 0. Aligned for its type, or else it is copied.
     */
    const void *data;
    /**
     * A `luna_dtype`.
     */
    int32_t dtype;
    /**
     * Number of dimensions, at most `LUNA_MAX_RANK`.
     */
    uint32_t rank;
    /**
     * Whether `strides` count. 0: the array is row-major without gaps.
     */
    uint32_t strided;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Elements along each dimension, the outermost first.
     */
    int64_t shape[LUNA_MAX_RANK];
    /**
     * From one element to the next along each dimension, in elements; negative and 0 are allowed.
     */
    int64_t strides[LUNA_MAX_RANK];
} luna_view;

/**
 * One component of a model file.
 */
typedef struct luna_component {
    /**
     * `sizeof(luna_component)`, set by the caller.
     */
    size_t size;
    /**
     * What it does: `vae`, `text_encoder`, `diffusion` or `vision`.
     */
    const char *kind;
    /**
     * Its architecture, such as `AutoencoderKL`.
     */
    const char *family;
    /**
     * Whose names its tensors bear, such as `diffusers`.
     */
    const char *dialect;
    /**
     * What stands before its tensors' names; empty for a file of its own.
     */
    const char *prefix;
    /**
     * Number of tensors.
     */
    uint64_t tensors;
    /**
     * Number of parameters.
     */
    uint64_t parameters;
    /**
     * Bytes in the file.
     */
    uint64_t bytes;
} luna_component;

/**
 * What became of one file of a stack on one model.
 */
typedef struct luna_lora_file {
    /**
     * `sizeof(luna_lora_file)`, set by the caller.
     */
    size_t size;
    /**
     * The file's name.
     */
    const char *name;
    /**
     * The model: a denoiser's architecture, such as `Stable Diffusion UNet`, text encoders, such as `clip_l`, or the
     * family of a vision-language model, such as `qwen3_vl`.
     */
    const char *model;
    /**
     * What its names and shapes look made for; NULL where they do not tell.
     */
    const char *made_for;
    /**
     * Which entry of the stack it is, from 0.
     */
    uint64_t entry;
    /**
     * The strength it was asked for.
     */
    double strength;
    /**
     * Adapters that found their layers.
     */
    uint64_t applied;
    /**
     * Adapters for this model that found no layer.
     */
    uint64_t unmatched;
    /**
     * Adapters whose sizes do not fit their layer.
     */
    uint64_t wrong_shape;
    /**
     * Adapters and tensors that Luna cannot apply.
     */
    uint64_t unsupported;
    /**
     * Adapters for another component of the pipeline, such as text encoders when this is a denoiser.
     */
    uint64_t elsewhere;
    /**
     * How they are applied: a `luna_lora_mode`, functional or merged.
     */
    int32_t mode;
    /**
     * A `luna_not_merged`.
     */
    int32_t not_merged;
} luna_lora_file;

/**
 * What became of one adapter of a stack on one model. A text that there is nothing to say for is NULL.
 */
typedef struct luna_lora_adapter {
    /**
     * `sizeof(luna_lora_adapter)`, set by the caller.
     */
    size_t size;
    /**
     * The file's name.
     */
    const char *file;
    /**
     * The model, as in `luna_lora_file`.
     */
    const char *model;
    /**
     * Which entry of the stack the file is, from 0.
     */
    uint64_t entry;
    /**
     * A `luna_lora_outcome`.
     */
    int32_t outcome;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Its name in the file.
     */
    const char *key;
    /**
     * Applied: which kind it is, such as `lora` or `loha`.
     */
    const char *kind;
    /**
     * Applied: the layers that it changes. Wrong shape: the layer.
     */
    const char *const *targets;
    /**
     * How many there are.
     */
    size_t target_count;
    /**
     * Unmatched: the layer whose name is nearest.
     */
    const char *nearest;
    /**
     * Wrong shape: the shape of the layer's weight.
     */
    const char *expected;
    /**
     * Wrong shape: the shape that the adapter comes to.
     */
    const char *found;
    /**
     * Unsupported: what it is.
     */
    const char *what;
} luna_lora_adapter;

/**
 * A stack of LoRAs with their strengths. Given by `luna_loras_new`, freed by `luna_loras_free`.
 */
typedef struct luna_loras {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_loras;

/**
 * One `<lora:name:model:clip>` of a prompt.
 */
typedef struct luna_lora_tag {
    /**
     * `sizeof(luna_lora_tag)`, set by the caller.
     */
    size_t size;
    /**
     * The number of the prompt that it stands in, from 0.
     */
    uint64_t prompt;
    /**
     * The LoRA's name as written; NULL for a tag that could not be read, which names none.
     */
    const char *name;
    /**
     * Strength for the denoiser.
     */
    double model;
    /**
     * Strength for the text encoders.
     */
    double clip;
    /**
     * The tag that could not be read, as written; NULL for one that could.
     */
    const char *malformed;
} luna_lora_tag;

/**
 * One LoRA of a stack: a file, or a name, or a file in memory.
 */
typedef struct luna_lora {
    /**
     * A `.safetensors` file or a PEFT folder; NULL for a LoRA by name or in memory.
     */
    const char *path;
    /**
     * A name that is looked up in the session's `lora_folders`: the path below one of them or its last part, or as much
     * of it as is clear. With `data` it is what reports call it.
     */
    const char *name;
    /**
     * The bytes of a `.safetensors` file in memory; NULL for none. Copied.
     */
    const void *data;
    /**
     * How many there are.
     */
    size_t data_bytes;
    /**
     * Strength for the denoiser.
     */
    double model;
    /**
     * Strength for the text encoders, and for a vision-language model.
     */
    double clip;
} luna_lora;

/**
 * Options of `luna_loras_new`. All zeros but `size` is a good choice.
 */
typedef struct luna_loras_options {
    /**
     * `sizeof(luna_loras_options)`.
     */
    size_t size;
    /**
     * Whether an adapter for a model that cannot be applied to it is an error: 0 or 1.
     */
    uint32_t strict;
    /**
     * Whether a stack of which nothing applies to a model may be given to it: 0 or 1.
     */
    uint32_t allow_nothing;
    /**
     * A `luna_lora_mode`.
     */
    int32_t mode;
    /**
     * A `luna_dora`.
     */
    int32_t dora;
    /**
     * How many calls of a model will follow, for `LUNA_LORA_MODE_AUTO`; 0 where it is not known. A daemon's
     * vision-language model goes by `max_tokens` instead.
     */
    uint64_t forwards;
    /**
     * Prompts whose `<lora:name:model:clip>` tags name further LoRAs, in the order in which they stand there, by names in
     * the session's `lora_folders` or the daemon's. `luna_loras_list_tags` tells what was found; encode the prompts with
     * `lora_tags` of `luna_text_options`, so that the tags are not read as words.
     */
    const char *const *prompts;
    /**
     * How many there are.
     */
    size_t prompt_count;
} luna_loras_options;

/**
 * A LoRA in the session's `lora_folders`.
 */
typedef struct luna_lora_name {
    /**
     * `sizeof(luna_lora_name)`, set by the caller.
     */
    size_t size;
    /**
     * Its path below the folder, without the ending.
     */
    const char *name;
} luna_lora_name;

/**
 * A VAE: pictures to latents and back. Given by `luna_vae_load`, freed by `luna_vae_free`.
 */
typedef struct luna_vae {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_vae;

/**
 * Options of `luna_vae_load_with`. All zeros but `size` is what `luna_vae_load` takes.
 */
typedef struct luna_vae_load_options {
    /**
     * `sizeof(luna_vae_load_options)`.
     */
    size_t size;
    /**
     * Which halves are wanted: a `luna_halves`. One half takes half the memory, and is another model than the whole.
     */
    int32_t halves;
    /**
     * 0.
     */
    uint32_t reserved;
} luna_vae_load_options;

/**
 * What is known of a VAE.
 */
typedef struct luna_vae_info {
    /**
     * `sizeof(luna_vae_info)`, set by the caller.
     */
    size_t size;
    /**
     * Channels of its latents.
     */
    uint32_t latent_channels;
    /**
     * Channels of its pictures.
     */
    uint32_t picture_channels;
    /**
     * Picture pixels along a side for each latent pixel.
     */
    uint32_t factor;
    /**
     * Whether `scale` and `shift` are known: 0 or 1.
     */
    uint32_t has_scale;
    /**
     * A sampler's latent is `(latent - shift) * scale`.
     */
    float scale;
    /**
     * See `scale`.
     */
    float shift;
    /**
     * Bytes of its weights.
     */
    uint64_t weight_bytes;
} luna_vae_info;

/**
 * Options of `luna_vae_encode`. All zeros but `size` is a good choice.
 */
typedef struct luna_encode_options {
    /**
     * `sizeof(luna_encode_options)`.
     */
    size_t size;
    /**
     * A `luna_precision`.
     */
    int32_t precision;
    /**
     * A `luna_tiling`.
     */
    int32_t tiling;
    /**
     * Side of a tile in latent pixels, at least 16; 0 for 64. Only with `LUNA_TILING_ALWAYS`.
     */
    uint32_t tile;
    /**
     * How far tiles overlap at least, in latent pixels; 0 for a quarter of the tile, but no more than 16.
     */
    uint32_t tile_overlap;
    /**
     * A `luna_size_rule`.
     */
    int32_t sizes;
    /**
     * Whether a sample of the encoder's distribution is wanted instead of its mean: 0 or 1.
     */
    uint32_t sample;
    /**
     * The sample's seed: equal seeds give equal noise on every machine.
     */
    uint64_t seed;
    /**
     * Whether the latent is wanted as a sampler sees it: 0 or 1. Fails if the file does not tell the factors.
     */
    uint32_t scaled;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Bytes that the call may use beyond the model; 0 for what the system has.
     */
    uint64_t memory_limit;
    /**
     * Cancellation, progress and log; all zero for none.
     */
    struct luna_call call;
} luna_encode_options;

/**
 * How a call was done. What does not concern it is 0.
 */
typedef struct luna_report {
    /**
     * `sizeof(luna_report)`, set by the caller.
     */
    size_t size;
    /**
     * What was done otherwise than asked for: `LUNA_FALLBACK_` bits.
     */
    uint32_t fallbacks;
    /**
     * The precision of the result: a `luna_precision`.
     */
    int32_t precision;
    /**
     * How attention was computed: a `luna_attention`.
     */
    int32_t attention;
    /**
     * Side of a tile in latent pixels; 0 for one piece.
     */
    uint32_t tile;
    /**
     * How far tiles overlap at least, in latent pixels.
     */
    uint32_t tile_overlap;
    /**
     * Tiles of each picture.
     */
    uint32_t tiles;
    /**
     * Prompts that were answered from the cache.
     */
    uint32_t cached;
    /**
     * Different sequences that text encoders read.
     */
    uint32_t sequences;
    /**
     * Values that were not finite in half precision.
     */
    uint64_t non_finite;
    /**
     * Bytes that one piece would have needed, where tiles were a fallback.
     */
    uint64_t memory_needed;
    /**
     * Bytes that there were, where tiles were a fallback.
     */
    uint64_t memory_available;
    /**
     * Bytes that were copied to bring the caller's arrays into the form that Luna takes; 0 for aligned, row-major f32.
     */
    uint64_t copied_bytes;
    /**
     * Time from call to result.
     */
    uint64_t nanoseconds;
    /**
     * Adapters of the call's LoRAs that were applied. `luna_loras_list_adapters` tells which.
     */
    uint32_t adapters_applied;
    /**
     * Adapters for this model that could not be applied.
     */
    uint32_t adapters_missed;
    /**
     * How the LoRAs were applied: a `luna_lora_mode`, functional or merged.
     */
    int32_t lora_mode;
    /**
     * Why `LUNA_LORA_MODE_AUTO` did not merge: a `luna_not_merged`.
     */
    int32_t not_merged;
    /**
     * Time that the call waited in a daemon's queue.
     */
    uint64_t queue_nanoseconds;
    /**
     * Whether the first-block cache answered for all blocks but the first: 0 or 1.
     */
    uint32_t cache_hit;
    /**
     * Its hits in a row, this one included.
     */
    uint32_t cache_hits;
    /**
     * Whether there was an earlier step to compare with, so that `cache_difference` counts: 0 or 1.
     */
    uint32_t cache_compared;
    /**
     * By how much the first block's addition differed from the last full step's: mean absolute difference over mean
     * absolute value.
     */
    float cache_difference;
    /**
     * Layers that ran with the low-rank branch of LoRAs beside the frozen weight. These four are 0 for a daemon's models.
     */
    uint32_t layers_branch;
    /**
     * Layers that ran with a weight that was built just before and dropped just after.
     */
    uint32_t layers_built;
    /**
     * Layers that ran with a weight that was merged before the call.
     */
    uint32_t layers_merged;
    /**
     * Layers that ran with the frozen weight and another bias.
     */
    uint32_t layers_bias;
} luna_report;

/**
 * Options of `luna_vae_decode`. All zeros but `size` is a good choice.
 */
typedef struct luna_decode_options {
    /**
     * `sizeof(luna_decode_options)`.
     */
    size_t size;
    /**
     * A `luna_precision`.
     */
    int32_t precision;
    /**
     * A `luna_tiling`.
     */
    int32_t tiling;
    /**
     * Side of a tile in latent pixels, at least 16; 0 for 64. Only with `LUNA_TILING_ALWAYS`.
     */
    uint32_t tile;
    /**
     * How far tiles overlap at least, in latent pixels; 0 for a quarter of the tile, but no more than 16.
     */
    uint32_t tile_overlap;
    /**
     * Whether the latent is as a sampler sees it: 0 or 1. Fails if the file does not tell the factors.
     */
    uint32_t scaled;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Bytes that the call may use beyond the model; 0 for what the system has.
     */
    uint64_t memory_limit;
    /**
     * Cancellation, progress and log; all zero for none.
     */
    struct luna_call call;
} luna_decode_options;

/**
 * Options of `luna_text_load`. All zeros but `size` is a good choice.
 */
typedef struct luna_text_load_options {
    /**
     * `sizeof(luna_text_load_options)`.
     */
    size_t size;
    /**
     * What the conditioning is for: `sd1`, `sd2`, `sdxl`, `sdxl_refiner`, `sd3`, `flux`, `t5` or `z_image`. NULL for
     * the diffusion model that listens to just these encoders.
     */
    const char *recipe;
    /**
     * Folders that `embedding:name` in a prompt is looked up in.
     */
    const char *const *embedding_folders;
    /**
     * How many there are.
     */
    size_t embedding_folder_count;
    /**
     * Bytes of conditioning to remember, so that a prompt is encoded once; 0 for none.
     */
    uint64_t cache_bytes;
    /**
     * For each path the `tokenizer.json` of a T5 or Qwen3, NULL for the one beside the weights; NULL for none at all.
     */
    const char *const *tokenizers;
    /**
     * For each path the only text encoder that is wanted of it, and which CLIP a file of no known size holds: `clip_l`,
     * `clip_g`, `clip_h`, `t5` or `qwen3`, NULL for what the file tells; NULL for none at all.
     */
    const char *const *encoders;
    /**
     * For each path the activation of a CLIP, a `luna_clip_activation`; NULL for what the files tell.
     */
    const int32_t *activations;
} luna_text_load_options;

/**
 * Text encoders that work together for one diffusion model. Given by `luna_text_load`, freed by `luna_text_free`.
 */
typedef struct luna_text {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_text;

/**
 * How text encoders' cache of conditionings is used. All zero without one.
 */
typedef struct luna_cache_usage {
    /**
     * `sizeof(luna_cache_usage)`, set by the caller.
     */
    size_t size;
    /**
     * Conditionings held.
     */
    uint64_t entries;
    /**
     * Bytes they take.
     */
    uint64_t bytes;
    /**
     * How often a conditioning was there.
     */
    uint64_t hits;
    /**
     * How often it was not.
     */
    uint64_t misses;
} luna_cache_usage;

/**
 * What is known of one text encoder.
 */
typedef struct luna_encoder_info {
    /**
     * `sizeof(luna_encoder_info)`, set by the caller.
     */
    size_t size;
    /**
     * Which one it is: `clip_l`, `clip_g`, `clip_h`, `t5` or `qwen3`.
     */
    const char *kind;
    /**
     * Number of layers.
     */
    uint64_t layers;
    /**
     * Length of a token's encoding.
     */
    uint64_t channels;
    /**
     * Number of token embeddings.
     */
    uint64_t vocabulary;
} luna_encoder_info;

/**
 * Options of `luna_text_encode` and `luna_text_tokenize`. All zeros but `size` is a good choice.
 */
typedef struct luna_text_options {
    /**
     * `sizeof(luna_text_options)`.
     */
    size_t size;
    /**
     * A `luna_precision`.
     */
    int32_t precision;
    /**
     * Which layer is taken: 1 the last, 2 the one before; 0 for what the diffusion model was taught with.
     */
    uint32_t clip_skip;
    /**
     * Whether the word `BREAK` ends the chunk, as in A1111: 0 or 1.
     */
    uint32_t break_chunks;
    /**
     * Whether `[text]` weighs 1.1 times less, as in A1111: 0 or 1.
     */
    uint32_t square_brackets;
    /**
     * Whether T5 may not look at its padding: 0 or 1.
     */
    uint32_t t5_mask;
    /**
     * The least number of tokens T5 is padded to; 0 for what the recipe has.
     */
    uint32_t t5_tokens;
    /**
     * Cancellation, progress and log; all zero for none.
     */
    struct luna_call call;
    /**
     * LoRAs for this call; all zero for none. Tokens are the same with and without.
     */
    struct luna_loras loras;
    /**
     * A `luna_attention`.
     */
    int32_t attention;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Whether `<lora:name:model:clip>` tags are taken out of the prompts, and of the lists below, before they are read: 0
     * or 1. `loras` is then the stack that `luna_loras_new` made of these prompts; to encode tags without a stack is
     * `LUNA_STATUS_INVALID_INPUT`.
     */
    uint32_t lora_tags;
    /**
     * 0.
     */
    uint32_t reserved2;
    /**
     * For each prompt what CLIP-L reads in its place, NULL for the prompt itself; NULL for none at all. As ComfyUI's nodes
     * with several fields have it: for SDXL the one with fewer chunks gets empty ones.
     */
    const char *const *clip_l_prompts;
    /**
     * The same for CLIP-G.
     */
    const char *const *clip_g_prompts;
    /**
     * The same for T5.
     */
    const char *const *t5_prompts;
    /**
     * For `luna_text_encode_ids` of a T5 or Qwen3 which ids count, of the same shape: bytes, 0 or 1, or integers. NULL for
     * all up to the end token.
     */
    const struct luna_view *attention_mask;
} luna_text_options;

/**
 * An encoded prompt. Freed by `luna_conditioning_free`. What it does not have is all zero.
 */
typedef struct luna_conditioning {
    /**
     * The encoded tokens, `[1, tokens, channels]`.
     */
    struct luna_tensor tokens;
    /**
     * The pooled output, `[1, width]`, where the recipe has one.
     */
    struct luna_tensor pooled;
    /**
     * Which tokens a denoiser may look at, `[1, tokens]`, where that is not all of them.
     */
    struct luna_tensor mask;
    /**
     * Textual inversions that were left out: a list of `luna_problem`, where there are any.
     */
    struct luna_list problems;
} luna_conditioning;

/**
 * One token of a prompt, for one encoder.
 */
typedef struct luna_token {
    /**
     * `sizeof(luna_token)`, set by the caller.
     */
    size_t size;
    /**
     * The encoder that reads it, such as `clip_l`.
     */
    const char *encoder;
    /**
     * The chunk it stands in, from 0.
     */
    uint64_t chunk;
    /**
     * Its id in the encoder's vocabulary; -1 where a vector of a textual inversion stands.
     */
    int64_t id;
    /**
     * How much it counts.
     */
    double weight;
    /**
     * The textual inversion's name; NULL for a token.
     */
    const char *embedding;
    /**
     * Which of the textual inversion's vectors it is, from 0.
     */
    uint64_t row;
} luna_token;

/**
 * A textual inversion that a prompt names and that was left out.
 */
typedef struct luna_problem {
    /**
     * `sizeof(luna_problem)`, set by the caller.
     */
    size_t size;
    /**
     * Its name in the prompt.
     */
    const char *name;
    /**
     * The encoder that does without it, such as `clip_l`.
     */
    const char *encoder;
    /**
     * Why, as a sentence.
     */
    const char *text;
} luna_problem;

/**
 * Options of `luna_model_load`. All zeros but `size` is a good choice.
 */
typedef struct luna_model_load_options {
    /**
     * `sizeof(luna_model_load_options)`.
     */
    size_t size;
    /**
     * How attention is computed where a call does not say: a `luna_attention`.
     */
    int32_t attention;
    /**
     * The precision of weights on devices other than the CPU: a `luna_precision`.
     */
    int32_t precision;
} luna_model_load_options;

/**
 * A denoiser: one step of a sampler at a time. Given by `luna_model_load`, freed by `luna_model_free`.
 */
typedef struct luna_model {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_model;

/**
 * What a denoiser takes and gives.
 */
typedef struct luna_model_info {
    /**
     * `sizeof(luna_model_info)`, set by the caller.
     */
    size_t size;
    /**
     * Its architecture, such as `Flux transformer`; valid for ever.
     */
    const char *family;
    /**
     * Channels of `x`.
     */
    uint64_t input_channels;
    /**
     * Channels of the prediction.
     */
    uint64_t output_channels;
    /**
     * Width of the context's tokens.
     */
    uint64_t context_width;
    /**
     * Width of `y`; 0 for a model that takes none.
     */
    uint64_t y_width;
    /**
     * Whether it takes a guidance scale: 0 or 1.
     */
    uint32_t takes_guidance;
    /**
     * Sides of `x` must be multiples of this.
     */
    uint32_t size_multiple;
    /**
     * The timestep of pure noise.
     */
    float last_timestep;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Bytes of its weights.
     */
    uint64_t weight_bytes;
} luna_model_info;

/**
 * What a denoiser is called with, as ComfyUI's `diffusion_model(x, timesteps, context, y=...)`. What the model does not
 * take is NULL.
 */
typedef struct luna_forward_input {
    /**
     * `sizeof(luna_forward_input)`.
     */
    size_t size;
    /**
     * The noisy latent, scaled as the sampler's model sees it, `[batch, channels, height, width]`.
     */
    const struct luna_view *x;
    /**
     * `[batch]`: 0..999 for UNets; 0 (no noise) to 1 for Flux and Z-Image.
     */
    const struct luna_view *timesteps;
    /**
     * The text encoder's tokens, `[batch, tokens, width]`.
     */
    const struct luna_view *context;
    /**
     * The pooled conditioning, `[batch, width]`.
     */
    const struct luna_view *y;
    /**
     * `[batch]`: the guidance scale, for models distilled with it.
     */
    const struct luna_view *guidance;
    /**
     * What ControlNets add on the input side; NULL among them for a place that nothing is added at.
     */
    const struct luna_view *const *control_input;
    /**
     * How many there are.
     */
    size_t control_input_count;
    /**
     * What they add in the middle.
     */
    const struct luna_view *const *control_middle;
    /**
     * How many there are.
     */
    size_t control_middle_count;
    /**
     * What they add on the output side.
     */
    const struct luna_view *const *control_output;
    /**
     * How many there are.
     */
    size_t control_output_count;
} luna_forward_input;

/**
 * Options of `luna_model_forward`. All zeros but `size` is a good choice.
 */
typedef struct luna_forward_options {
    /**
     * `sizeof(luna_forward_options)`.
     */
    size_t size;
    /**
     * A `luna_precision`.
     */
    int32_t precision;
    /**
     * A `luna_attention`.
     */
    int32_t attention;
    /**
     * Cancellation, progress and log; all zero for none.
     */
    struct luna_call call;
    /**
     * LoRAs for this call; all zero for none.
     */
    struct luna_loras loras;
    /**
     * Names the sampling in the session's first-block cache: where the first block changed little since the last full
     * step, what the later blocks added then is added again. Positive and negative prompt need a name each if they are
     * called one after the other. NULL computes every step. `luna_steps_forget` drops what is kept.
     */
    const char *cache_sequence;
    /**
     * The most that the first block's addition may differ: mean absolute difference over mean absolute value; 0 for 0.12,
     * less for a cache that never answers.
     */
    float cache_threshold;
    /**
     * How far the sampling must have come, 0 to 1, before the cache answers.
     */
    float cache_start_percent;
    /**
     * How far the sampling may have come, 0 to 1, for the cache to answer; 0 for 1.
     */
    float cache_end_percent;
    /**
     * How many steps in a row may be answered; 0 for any number.
     */
    uint32_t cache_max_hits;
} luna_forward_options;

/**
 * The sizes that SDXL's denoiser is told beside the pooled text.
 */
typedef struct luna_picture_sizes {
    /**
     * `sizeof(luna_picture_sizes)`.
     */
    size_t size;
    /**
     * Width of the picture before cropping.
     */
    uint32_t width;
    /**
     * Height of the picture before cropping.
     */
    uint32_t height;
    /**
     * Columns that were cropped at the left.
     */
    uint32_t crop_left;
    /**
     * Rows that were cropped at the top.
     */
    uint32_t crop_top;
    /**
     * Width of the picture that is made; 0 for `width`.
     */
    uint32_t target_width;
    /**
     * Height of the picture that is made; 0 for `height`.
     */
    uint32_t target_height;
} luna_picture_sizes;

/**
 * A timestep of Stable Diffusion 1.x, 2.x and SDXL, and how much noise stands in the latent there.
 */
typedef struct luna_noise_level {
    /**
     * What `luna_model_forward` takes, 0 to 999.
     */
    float timestep;
    /**
     * Standard deviation of the noise, where that of the latent is 1. The network sees the latent divided by
     * `sqrt(1 + sigma * sigma)`.
     */
    float sigma;
} luna_noise_level;

/**
 * A vision encoder: pictures to embeddings. Given by `luna_vision_load`, freed by `luna_vision_free`.
 */
typedef struct luna_vision {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_vision;

/**
 * Options of `luna_vision_load_with`. All zeros but `size` is what the file states, and what `luna_vision_load` takes.
 */
typedef struct luna_vision_load_options {
    /**
     * `sizeof(luna_vision_load_options)`.
     */
    size_t size;
    /**
     * A `luna_vision_activation`.
     */
    int32_t activation;
    /**
     * Whether the fields below say how pictures become pixel values, in place of `preprocessor_config.json` or what the
     * family was trained with: 0 or 1.
     */
    uint32_t preprocessing;
    /**
     * A `luna_resize`.
     */
    int32_t resize;
    /**
     * A `luna_filter`.
     */
    int32_t filter;
    /**
     * Pixels; the shorter side's with `LUNA_RESIZE_SHORTEST_EDGE`.
     */
    uint32_t resize_height;
    /**
     * Pixels; only with `LUNA_RESIZE_EXACT`.
     */
    uint32_t resize_width;
    /**
     * Rows that are cut out of the middle; 0 for all.
     */
    uint32_t crop_height;
    /**
     * Columns that are cut out of the middle; 0 for all.
     */
    uint32_t crop_width;
    /**
     * Factor on 8-bit values; 0 for 1/255.
     */
    float rescale;
    /**
     * Subtracted from red, green and blue.
     */
    float mean[3];
    /**
     * What the difference is divided by; three zeros for ones.
     */
    float std[3];
} luna_vision_load_options;

/**
 * What is known of a vision encoder.
 */
typedef struct luna_vision_info {
    /**
     * `sizeof(luna_vision_info)`, set by the caller.
     */
    size_t size;
    /**
     * Its family: `clip_vision` or `siglip`; valid for ever.
     */
    const char *kind;
    /**
     * Side of the pictures that it takes, in pixels; others are resized as it was trained with.
     */
    uint64_t image_size;
    /**
     * Side of a patch, in pixels.
     */
    uint64_t patch_size;
    /**
     * Number of layers.
     */
    uint64_t layers;
    /**
     * Length of a token's encoding.
     */
    uint64_t channels;
    /**
     * Tokens of a picture; 0 for a daemon's.
     */
    uint64_t tokens;
    /**
     * Length of the projected embedding; 0 where there is none, and for a daemon's.
     */
    uint64_t embedding;
    /**
     * Bytes of its weights; 0 for a daemon's.
     */
    uint64_t weight_bytes;
} luna_vision_info;

/**
 * Options of `luna_vision_encode`. All zeros but `size` is a good choice.
 */
typedef struct luna_vision_options {
    /**
     * `sizeof(luna_vision_options)`.
     */
    size_t size;
    /**
     * A `luna_precision`.
     */
    int32_t precision;
    /**
     * Whether only a part of each picture is looked at, the four numbers below in pixels: 0 or 1.
     */
    uint32_t part;
    /**
     * The part's first row.
     */
    uint32_t top;
    /**
     * Its first column.
     */
    uint32_t left;
    /**
     * Its rows.
     */
    uint32_t height;
    /**
     * Its columns.
     */
    uint32_t width;
    /**
     * Cancellation, progress and log; all zero for none.
     */
    struct luna_call call;
} luna_vision_options;

/**
 * What a vision encoder makes of pictures, by the names that transformers has. Freed by `luna_features_free`. What a
 * model does not give is all zero.
 */
typedef struct luna_features {
    /**
     * `[pictures, tokens, channels]`: after the last block (CLIP), or after the final norm (SigLIP).
     */
    struct luna_tensor last_hidden_state;
    /**
     * `[pictures, tokens, channels]`: after the last block but one.
     */
    struct luna_tensor penultimate;
    /**
     * `[pictures, channels]`.
     */
    struct luna_tensor pooler_output;
    /**
     * `[pictures, embedding]`: projected to where texts are embedded, too.
     */
    struct luna_tensor image_embeds;
} luna_features;

/**
 * What a vision-language model answered.
 */
typedef struct luna_generated {
    /**
     * `sizeof(luna_generated)`, set by the caller.
     */
    size_t size;
    /**
     * The text without special tokens and stop texts.
     */
    const char *text;
    /**
     * All ids that were generated, the one that ended the turn included.
     */
    const uint32_t *ids;
    /**
     * How many there are.
     */
    size_t id_count;
    /**
     * Tokens of the prompt, pictures included.
     */
    uint64_t prompt_tokens;
    /**
     * Tokens of pictures.
     */
    uint64_t picture_tokens;
    /**
     * A `luna_finish`.
     */
    int32_t finish;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Bytes that remembering the tokens took.
     */
    uint64_t cache_bytes;
    /**
     * Time for pictures and prompt, up to the first token.
     */
    uint64_t prompt_nanoseconds;
    /**
     * Time for all tokens after the first.
     */
    uint64_t token_nanoseconds;
} luna_generated;

/**
 * Options of `luna_vlm_load`. All zeros but `size` is a good choice.
 */
typedef struct luna_vlm_load_options {
    /**
     * `sizeof(luna_vlm_load_options)`.
     */
    size_t size;
    /**
     * The `tokenizer.json`; NULL for the one beside the weights. With another one it is another model.
     */
    const char *tokenizer;
    /**
     * The vision part of a GGUF language model, `mmproj-*.gguf`; NULL for the one beside it that fits. With another one
     * it is another model.
     */
    const char *projector;
} luna_vlm_load_options;

/**
 * A vision-language model: pictures and a prompt to text. Given by `luna_vlm_load`, freed by `luna_vlm_free`.
 */
typedef struct luna_vlm {
    /**
     * Not for callers.
     */
    uint64_t table;
    /**
     * Not for callers.
     */
    uint32_t slot;
    /**
     * Not for callers.
     */
    uint32_t generation;
} luna_vlm;

/**
 * What is known of a vision-language model. Of a daemon's, only the family.
 */
typedef struct luna_vlm_info {
    /**
     * `sizeof(luna_vlm_info)`, set by the caller.
     */
    size_t size;
    /**
     * Its family: `qwen3_vl` or `llava`; valid for ever.
     */
    const char *family;
    /**
     * Layers of its language part.
     */
    uint64_t layers;
    /**
     * Layers of its vision part.
     */
    uint64_t vision_layers;
    /**
     * Length of a token's encoding.
     */
    uint64_t channels;
    /**
     * Number of tokens that it knows.
     */
    uint64_t vocabulary;
    /**
     * Tokens that it was trained for.
     */
    uint64_t context;
    /**
     * Whether there is a tokenizer: 0 or 1.
     */
    uint32_t has_tokenizer;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Bytes of its weights.
     */
    uint64_t weight_bytes;
} luna_vlm_info;

/**
 * A part of a message: words, or pictures.
 */
typedef struct luna_message_part {
    /**
     * Words; NULL for pictures.
     */
    const char *text;
    /**
     * Pictures, `[batch, height, width, channels]` in 0..1, which stand here one after the other; NULL for words. Copied.
     */
    const struct luna_view *image;
} luna_message_part;

/**
 * One turn of a conversation.
 */
typedef struct luna_message {
    /**
     * Who speaks: a `luna_role`.
     */
    int32_t role;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * What is said and shown, in order.
     */
    const struct luna_message_part *parts;
    /**
     * How many there are.
     */
    size_t part_count;
} luna_message;

/**
 * What a vision-language model is asked: one of `prompt`, `messages` and `input_ids`.
 */
typedef struct luna_question {
    /**
     * `sizeof(luna_question)`.
     */
    size_t size;
    /**
     * What is asked, in a single turn; NULL for a conversation or a prepared prompt.
     */
    const char *prompt;
    /**
     * Instructions that stand above the single turn; NULL for none.
     */
    const char *system;
    /**
     * Pictures of the single turn, which stand before its words, each `[batch, height, width, channels]` in 0..1. Copied.
     */
    const struct luna_view *const *images;
    /**
     * How many there are.
     */
    size_t image_count;
    /**
     * A conversation, which the model's own template writes out and the model goes on with as the assistant; NULL for none.
     */
    const struct luna_message *messages;
    /**
     * How many turns it has.
     */
    size_t message_count;
    /**
     * A prepared prompt, as transformers' processors make it: `[ids]` or `[1, ids]` of 32- or 64-bit integers, with the
     * picture's id for each token that a picture becomes; NULL for none.
     */
    const struct luna_view *input_ids;
    /**
     * Its pictures: patches `[patches, length]` with `image_grid_thw`, or without it whole pictures `[pictures, 3, height,
     * width]`, resized and normalised; NULL for none. Copied.
     */
    const struct luna_view *pixel_values;
    /**
     * Patches of each picture, `[pictures, 3]` of integers: frames, rows, columns; NULL for none.
     */
    const struct luna_view *image_grid_thw;
} luna_question;

/**
 * Hears each token as it comes: its id, and the text that it completes, which may be empty and is valid while the
 * function runs. Called from one of Luna's threads; should return quickly, and must neither throw nor leave by
 * `longjmp`.
 */
typedef void (*luna_piece_function)(uint32_t id, const char *text, void *user_data);

/**
 * Options of `luna_vlm_generate`. All zeros but `size` is a good choice: greedy, at most 512 tokens.
 */
typedef struct luna_generate_options {
    /**
     * `sizeof(luna_generate_options)`.
     */
    size_t size;
    /**
     * A `luna_precision`.
     */
    int32_t precision;
    /**
     * The most tokens; 0 for 512.
     */
    uint32_t max_tokens;
    /**
     * Divides the logits; 0 takes the most likely token always.
     */
    float temperature;
    /**
     * Only so many of the most likely tokens; 0 for all.
     */
    uint32_t top_k;
    /**
     * Only the most likely tokens that together reach this probability; 0 for all.
     */
    float top_p;
    /**
     * Only tokens at least this times as likely as the most likely; 0 for all.
     */
    float min_p;
    /**
     * Divides positive and multiplies negative logits of tokens that occurred, prompt included; 0 for 1, which does
     * nothing.
     */
    float repetition_penalty;
    /**
     * Whether generation goes on where the model ends its turn: 0 or 1.
     */
    uint32_t ignore_end;
    /**
     * The same seed chooses the same tokens.
     */
    uint64_t seed;
    /**
     * Texts before the first of which generation ends.
     */
    const char *const *stop;
    /**
     * How many there are.
     */
    size_t stop_count;
    /**
     * Hears each token as it comes; may be NULL.
     */
    luna_piece_function piece;
    /**
     * Handed to `piece`.
     */
    void *user_data;
    /**
     * Cancellation, heard between tokens, progress in tokens, and log; all zero for none.
     */
    struct luna_call call;
    /**
     * LoRAs for this call; all zero for none. Their strength is that for text encoders.
     */
    struct luna_loras loras;
} luna_generate_options;

/**
 * One picture of a save job, or a batch of one size.
 */
typedef struct luna_save_image {
    /**
     * `[batch, height, width, channels]`: floats in 0..1, or bytes. Copied.
     */
    const struct luna_view *pixels;
    /**
     * A word behind the name, such as `UPSCALED`; NULL for none.
     */
    const char *affix;
    /**
     * A `luna_format`.
     */
    int32_t format;
    /**
     * Quality of a lossy format, 1 to 100; 0 for 90.
     */
    int32_t quality;
    /**
     * Compression level of a PNG, 1 to 9; 0 for 4.
     */
    int32_t level;
    /**
     * Whether it goes into a folder named like its affix: 0 or 1.
     */
    uint32_t subfolder;
} luna_save_image;

/**
 * Pictures to be saved. All zeros but `size` and `images` is a good choice.
 */
typedef struct luna_save_job {
    /**
     * `sizeof(luna_save_job)`.
     */
    size_t size;
    /**
     * The pictures.
     */
    const struct luna_save_image *images;
    /**
     * How many there are.
     */
    size_t image_count;
    /**
     * A template for folders below the session's output folder; NULL for none.
     */
    const char *folder;
    /**
     * A template for the file's name, such as `%prompt:40%_%counter:5%`; NULL for the default.
     */
    const char *name;
    /**
     * The model's path for templates, such as `sdxl/base.safetensors`; NULL for none.
     */
    const char *model_path;
    /**
     * The prompt for templates; NULL for none.
     */
    const char *prompt;
    /**
     * The seed for templates, if `has_seed` is 1.
     */
    uint64_t seed;
    /**
     * Whether there is a seed: 0 or 1.
     */
    uint32_t has_seed;
    /**
     * Minutes that local time is ahead of UTC, for `%time%`.
     */
    int32_t utc_offset_minutes;
    /**
     * The caller's own number for templates.
     */
    uint64_t index;
    /**
     * Keys of the metadata in every file.
     */
    const char *const *metadata_keys;
    /**
     * The texts to these keys.
     */
    const char *const *metadata_texts;
    /**
     * How many there are.
     */
    size_t metadata_count;
    /**
     * A `luna_gate`.
     */
    int32_t gate;
    /**
     * Whether pictures that the gate rejects are dropped, not kept in `_discarded`: 0 or 1.
     */
    uint32_t drop_rejects;
    /**
     * The least score that passes, 0..1; 0 for 0.3.
     */
    double gate_threshold;
    /**
     * A `luna_if_exists`.
     */
    int32_t if_exists;
    /**
     * Whether a full queue is `LUNA_STATUS_BUSY` at once instead of a wait: 0 or 1.
     */
    uint32_t busy_when_full;
    /**
     * Whether the job is on the disk before the call returns, and survives the process: 0 or 1.
     */
    uint32_t durable;
    /**
     * 0.
     */
    uint32_t reserved;
} luna_save_job;

/**
 * A save job as it stands.
 */
typedef struct luna_save_status {
    /**
     * `sizeof(luna_save_status)`, set by the caller.
     */
    size_t size;
    /**
     * The job's number.
     */
    uint64_t id;
    /**
     * A `luna_save_state`.
     */
    int32_t state;
    /**
     * Whether it would survive the process: 0 or 1.
     */
    uint32_t durable;
    /**
     * Its pictures.
     */
    uint64_t pictures;
    /**
     * How many of them were written.
     */
    uint64_t written;
    /**
     * How many failed.
     */
    uint64_t failed;
    /**
     * How many a gate rejected.
     */
    uint64_t rejected;
    /**
     * How many were cancelled.
     */
    uint64_t cancelled;
} luna_save_status;

/**
 * One picture of a save job.
 */
typedef struct luna_save_picture {
    /**
     * `sizeof(luna_save_picture)`, set by the caller.
     */
    size_t size;
    /**
     * Which of the job's images.
     */
    uint64_t image;
    /**
     * Which of that image's batch.
     */
    uint64_t index;
    /**
     * What became of it: a `luna_save_state`.
     */
    int32_t state;
    /**
     * Why it failed: a `luna_status`; 0 if it did not.
     */
    int32_t status;
    /**
     * The file that was written; NULL if none was. A rejected picture that is kept has one.
     */
    const char *path;
    /**
     * The file's SHA-256, 64 hexadecimal digits; NULL if none was written.
     */
    const char *sha256;
    /**
     * The file's bytes.
     */
    uint64_t bytes;
    /**
     * Why it failed, as a sentence; NULL if it did not.
     */
    const char *error;
    /**
     * The gate's score; NaN if there was no gate.
     */
    double score;
} luna_save_picture;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The ABI of the loaded library: the major number in the upper 16 bits, the minor one in the lower. A program built
 * with this header can use the library if the major numbers are equal and the library's minor number is not below
 * `LUNA_ABI_MINOR`.
 */
uint32_t luna_abi_version(void);

/**
 * The version of the library, such as `0.1.0`; valid for ever.
 */
const char *luna_version(void);

/**
 * The name of a status in snake case, such as `not_found`; `unknown` for a number that is none. Valid for ever.
 */
const char *luna_status_name(int32_t status);

/**
 * What the last function that failed on this thread had to say. Functions that succeed leave it as it is.
 */
luna_status luna_last_error(struct luna_error *error);

/**
 * Makes something to watch and cancel calls with. Put it into the options of any number of calls, also at once.
 */
luna_status luna_call_new(const struct luna_call_options *options,
                          struct luna_call *call);

/**
 * Asks every call that has this in its options to stop, those to come among them: they answer
 * `LUNA_STATUS_CANCELLED`. May be called from a callback.
 */
luna_status luna_call_cancel(struct luna_call call);

/**
 * Frees it. Calls that run go on, and still call its functions.
 */
luna_status luna_call_free(struct luna_call call);

/**
 * Opens a session. NULL for the options stands for zeros.
 */
luna_status luna_open(const struct luna_open_options *options, struct luna_session *session);

/**
 * Connects to a daemon: the same handle, and the same functions on the daemon's models. `address` is such as
 * `127.0.0.1:19283`, or NULL for that. `options` may be NULL. Paths are read by the daemon where it may, and are sent
 * where it may not; a name that the daemon knows stands before a path. What a daemon does not do is
 * `LUNA_STATUS_UNSUPPORTED`: pinning, trimming, lists of save jobs and of LoRAs, folders of textual inversions.
 */
luna_status luna_connect(const char *address,
                         const struct luna_connect_options *options,
                         struct luna_session *session);

/**
 * Ends a session; save jobs that were taken in are finished first. Models, tensors and lists that it gave stay valid
 * until they are freed themselves.
 */
luna_status luna_close(struct luna_session session);

/**
 * Tells what a session holds and has done.
 */
luna_status luna_get_stats(struct luna_session session, struct luna_stats *stats);

/**
 * Lists the models in memory, least recently used first.
 */
luna_status luna_list_residents(struct luna_session session, struct luna_list *list);

/**
 * One model of such a list.
 */
luna_status luna_list_resident(struct luna_list list, size_t index, struct luna_resident *resident);

/**
 * Keeps a model in memory although idle (`pinned` is not 0), or lets it go again.
 */
luna_status luna_pin(struct luna_session session, const char *id, uint32_t pinned);

/**
 * Takes a model out of memory, pinned or not. `unloaded`, which may be NULL, gets a `luna_unloaded`.
 */
luna_status luna_unload(struct luna_session session, const char *id, int32_t *unloaded);

/**
 * Gives memory that finished calls left for the next ones back to the system.
 */
luna_status luna_trim(struct luna_session session);

/**
 * How many there are.
 */
luna_status luna_list_count(struct luna_list list, size_t *count);

/**
 * Frees a list and all texts in it.
 */
luna_status luna_list_free(struct luna_list list);

/**
 * Where a tensor's values lie. They stay there, unchanged, until `luna_tensor_free`.
 */
luna_status luna_tensor_view(struct luna_tensor tensor, struct luna_view *view);

/**
 * Frees a tensor. Views of it end; what was lent through DLPack stays until its deleter is called.
 */
luna_status luna_tensor_free(struct luna_tensor tensor);

/**
 * Lends a tensor to another library as a `DLManagedTensor *` of DLPack (major version 0, as NumPy, PyTorch and JAX take
 * it): the memory is shared, not copied, and must not be written to. Whoever takes it calls its deleter once; until then the memory
 * stays, also past `luna_tensor_free`.
 */
luna_status luna_tensor_to_dlpack(struct luna_tensor tensor,
                                  void **managed);

/**
 * Looks at another library's tensor, a `DLManagedTensor *` of DLPack. Nothing is taken: the view is valid for as long
 * as the caller keeps the tensor, whose deleter stays the caller's to call.
 */
luna_status luna_view_from_dlpack(const void *managed,
                                  struct luna_view *view);

/**
 * Reads a PNG, JPEG or WebP by its content, turned upright as its EXIF says: `[1, height, width, channels]` in 0..1.
 */
luna_status luna_picture_read(const char *path,
                              struct luna_tensor *image);

/**
 * Lists the components that a model file or folder holds, from its names and shapes alone; an empty list if Luna
 * recognises none.
 */
luna_status luna_inspect(const char *path,
                         struct luna_list *list);

/**
 * One component of such a list.
 */
luna_status luna_list_component(struct luna_list list, size_t index, struct luna_component *component);

/**
 * One file of a list that `luna_loras_list_files` gave.
 */
luna_status luna_list_lora_file(struct luna_list list, size_t index, struct luna_lora_file *file);

/**
 * One adapter of a list that `luna_loras_list_adapters` gave.
 */
luna_status luna_list_lora_adapter(struct luna_list list, size_t index, struct luna_lora_adapter *adapter);

/**
 * Lists the tags in the prompts that a stack was made with: a list of `luna_lora_tag`, prompt by prompt, those that could
 * not be read behind those that could.
 */
luna_status luna_loras_list_tags(struct luna_loras loras,
                                 struct luna_list *list);

/**
 * One tag of such a list.
 */
luna_status luna_list_lora_tag(struct luna_list list, size_t index, struct luna_lora_tag *tag);

/**
 * Makes a stack of LoRAs, to be put into the options of any number of calls, also at once. Their differences add, so
 * the order does not matter beyond rounding. Files are read now, and shared with other stacks; the models are never
 * changed. `options` may be NULL; its prompts name further LoRAs by tags.
 */
luna_status luna_loras_new(struct luna_session session,
                           const struct luna_lora *entries,
                           size_t entry_count,
                           const struct luna_loras_options *options,
                           struct luna_loras *loras);

/**
 * Lists what became of each file on each model that the stack was used with and whose handle is open: a list of
 * `luna_lora_file`. Also where a call refused the stack.
 */
luna_status luna_loras_list_files(struct luna_loras loras,
                                  struct luna_list *list);

/**
 * Lists what became of each adapter, as `luna_loras_list_files` does of files: a list of `luna_lora_adapter`.
 */
luna_status luna_loras_list_adapters(struct luna_loras loras, struct luna_list *list);

/**
 * Frees a stack, and the copies of layers that were merged for it. Calls that run keep what they need.
 */
luna_status luna_loras_free(struct luna_loras loras);

/**
 * Lists the LoRAs in the session's `lora_folders`: a list of `luna_lora_name`, sorted.
 */
luna_status luna_list_loras(struct luna_session session, struct luna_list *list);

/**
 * One LoRA of such a list.
 */
luna_status luna_list_lora_name(struct luna_list list, size_t index, struct luna_lora_name *name);

/**
 * Loads a VAE, or shares the one in memory if its content is the same. `path` is a file (.safetensors, alone or in a
 * checkpoint), a `.safetensors.index.json`, a diffusers folder, or `moonlet` for the small demonstration model that the
 * library carries.
 */
luna_status luna_vae_load(struct luna_session session,
                          const char *path,
                          struct luna_vae *vae);

/**
 * As `luna_vae_load`, with options, which may be NULL. A daemon's VAEs are whole.
 */
luna_status luna_vae_load_with(struct luna_session session,
                               const char *path,
                               const struct luna_vae_load_options *options,
                               struct luna_vae *vae);

/**
 * Tells what is known of a VAE.
 */
luna_status luna_vae_get_info(struct luna_vae vae, struct luna_vae_info *info);

/**
 * Encodes pictures, `[batch, height, width, channels]` with 1, 3 or 4 channels in 0..1 (alpha is dropped, grey is
 * repeated), to latents, `[batch, latent channels, height/8, width/8]`. `options` and `report` may be NULL.
 */
luna_status luna_vae_encode(struct luna_vae vae,
                            const struct luna_view *image,
                            const struct luna_encode_options *options,
                            struct luna_tensor *latent,
                            struct luna_report *report);

/**
 * Decodes latents, `[batch, latent channels, height, width]`, to pictures, `[batch, height*8, width*8, 3]` in 0..1.
 * `options` and `report` may be NULL.
 */
luna_status luna_vae_decode(struct luna_vae vae,
                            const struct luna_view *latent,
                            const struct luna_decode_options *options,
                            struct luna_tensor *image,
                            struct luna_report *report);

/**
 * Frees a VAE's handle. The model stays in memory for the next one, as the session's budget allows.
 */
luna_status luna_vae_free(struct luna_vae vae);

/**
 * Loads the text encoders of a diffusion model, or shares those in memory. Each path is a file (a text encoder's own,
 * or a checkpoint with some in it), a `.safetensors.index.json`, a folder, or `demo` for the small demonstration model
 * with random weights that the library carries.
 */
luna_status luna_text_load(struct luna_session session,
                           const char *const *paths,
                           size_t path_count,
                           const struct luna_text_load_options *options,
                           struct luna_text *text);

/**
 * Tells how the cache is used that `cache_bytes` of `luna_text_load_options` asked for. A daemon has one of its own, and
 * does not tell.
 */
luna_status luna_text_get_cache_usage(struct luna_text text,
                                      struct luna_cache_usage *usage);

/**
 * Forgets the conditionings that are remembered.
 */
luna_status luna_text_clear_cache(struct luna_text text);

/**
 * Lists the encoders that were loaded.
 */
luna_status luna_text_list_encoders(struct luna_text text, struct luna_list *list);

/**
 * One encoder of such a list.
 */
luna_status luna_list_encoder(struct luna_list list, size_t index, struct luna_encoder_info *info);

/**
 * Tokenizes a prompt, with ComfyUI's weights such as `(red:1.3)`, for each encoder; the options' lists of prompts have one
 * each. `list` gets a list of
 * `luna_token`, encoder by encoder and chunk by chunk; `problems`, which may be NULL, a list of `luna_problem`.
 * `options` may be NULL.
 */
luna_status luna_text_tokenize(struct luna_text text,
                               const char *prompt,
                               const struct luna_text_options *options,
                               struct luna_list *list,
                               struct luna_list *problems);

/**
 * Encodes prompts in one batch. `conditioning` has room for `prompt_count` of them. `options` and `report` may be NULL.
 */
luna_status luna_text_encode(struct luna_text text,
                             const char *const *prompts,
                             size_t prompt_count,
                             const struct luna_text_options *options,
                             struct luna_conditioning *conditioning,
                             struct luna_report *report);

/**
 * Encodes token ids in place of prompts, `[tokens]` or `[rows, tokens]` of 32- or 64-bit integers with start, end and
 * padding as the model wants them, where there is one encoder only. `conditioning` has room for one, or for as many as
 * there are rows. `attention_mask` of the options says which ids count. `options` and `report` may be NULL.
 */
luna_status luna_text_encode_ids(struct luna_text text,
                                 const struct luna_view *token_ids,
                                 const struct luna_text_options *options,
                                 struct luna_conditioning *conditioning,
                                 struct luna_report *report);

/**
 * Frees all handles of a conditioning; those that are all zero are passed over.
 */
luna_status luna_conditioning_free(struct luna_conditioning conditioning);

/**
 * Frees the encoders' handle. The models stay in memory for the next one, as the session's budget allows.
 */
luna_status luna_text_free(struct luna_text text);

/**
 * One token of a list that `luna_text_tokenize` gave.
 */
luna_status luna_list_token(struct luna_list list, size_t index, struct luna_token *token);

/**
 * One problem of such a list.
 */
luna_status luna_list_problem(struct luna_list list, size_t index, struct luna_problem *problem);

/**
 * Loads a denoiser (a Stable Diffusion UNet, a Flux or a Z-Image transformer), or shares the one in memory. `path` is a
 * file, a checkpoint, a `.safetensors.index.json` or a diffusers folder. `options` may be NULL.
 */
luna_status luna_model_load(struct luna_session session,
                            const char *path,
                            const struct luna_model_load_options *options,
                            struct luna_model *model);

/**
 * Tells what a denoiser takes and gives. A daemon's tells with its first call, and is `LUNA_STATUS_UNSUPPORTED` before.
 */
luna_status luna_model_get_info(struct luna_model model,
                                struct luna_model_info *info);

/**
 * One forward step: the network's raw prediction, `[batch, channels, height, width]`. `options` and `report` may be
 * NULL.
 */
luna_status luna_model_forward(struct luna_model model,
                               const struct luna_forward_input *input,
                               const struct luna_forward_options *options,
                               struct luna_tensor *prediction,
                               struct luna_report *report);

/**
 * Frees a denoiser's handle. The model stays in memory for the next one, as the session's budget allows.
 */
luna_status luna_model_free(struct luna_model model);

/**
 * Makes the `y` of a denoiser from pooled text, `[batch, width]`: the pooled text for Flux; for SDXL the pooled text with
 * the sines and cosines of the sizes, as ComfyUI embeds them. `y` is all zero for a model that takes none. `sizes` may be
 * NULL for a model that is told none. Not for a daemon's models.
 */
luna_status luna_model_pooled(struct luna_model model,
                              const struct luna_view *pooled,
                              const struct luna_picture_sizes *sizes,
                              struct luna_tensor *y);

/**
 * The noise levels of so many steps, evenly from timestep 999 to 0, and behind them the end without noise: `steps + 1`
 * places. For UNets of Stable Diffusion; ComfyUI's schedule "normal".
 */
luna_status luna_noise_levels(size_t steps,
                              struct luna_noise_level *levels);

/**
 * Drops what the first-block cache keeps of samplings whose names start so, and tells how many there were. `dropped` may
 * be NULL. A daemon drops a client's with its last connection.
 */
luna_status luna_steps_forget(struct luna_session session,
                              const char *prefix,
                              size_t *dropped);

/**
 * Loads a vision encoder (CLIP or SigLIP), or shares the one in memory. `path` is a file, a checkpoint with one in it or
 * a folder.
 */
luna_status luna_vision_load(struct luna_session session,
                             const char *path,
                             struct luna_vision *vision);

/**
 * As `luna_vision_load`, with options, which may be NULL: what the file is to be taken for where it does not say, or says
 * otherwise. With other options it is another model. A daemon's are `LUNA_STATUS_UNSUPPORTED`.
 */
luna_status luna_vision_load_with(struct luna_session session,
                                  const char *path,
                                  const struct luna_vision_load_options *options,
                                  struct luna_vision *vision);

/**
 * Tells what is known of a vision encoder. A daemon's tells with its first call, and is `LUNA_STATUS_UNSUPPORTED` before.
 */
luna_status luna_vision_get_info(struct luna_vision vision,
                                 struct luna_vision_info *info);

/**
 * Encodes pictures of any size, each `[batch, height, width, channels]` in 0..1, as one batch. `options` and `report`
 * may be NULL.
 */
luna_status luna_vision_encode(struct luna_vision vision,
                               const struct luna_view *const *images,
                               size_t image_count,
                               const struct luna_vision_options *options,
                               struct luna_features *features,
                               struct luna_report *report);

/**
 * Encodes pixel values that were prepared already, `[batch, 3, image_size, image_size]`, resized, cropped and
 * normalised. `options` and `report` may be NULL; a part cannot be asked for.
 */
luna_status luna_vision_encode_pixels(struct luna_vision vision,
                                      const struct luna_view *pixels,
                                      const struct luna_vision_options *options,
                                      struct luna_features *features,
                                      struct luna_report *report);

/**
 * Frees all handles of features; those that are all zero are passed over.
 */
luna_status luna_features_free(struct luna_features features);

/**
 * Frees a vision encoder's handle. The model stays in memory for the next one, as the session's budget allows.
 */
luna_status luna_vision_free(struct luna_vision vision);

/**
 * The answer in such a list, at index 0.
 */
luna_status luna_list_generated(struct luna_list list, size_t index, struct luna_generated *generated);

/**
 * Loads a vision-language model (Qwen3-VL or LLaVA 1.5), or shares the one in memory. `path` is a file, a
 * `.safetensors.index.json` or a folder. `options` may be NULL.
 */
luna_status luna_vlm_load(struct luna_session session,
                          const char *path,
                          const struct luna_vlm_load_options *options,
                          struct luna_vlm *vlm);

/**
 * Tells what is known of a vision-language model. A daemon's tells with its first call, and is `LUNA_STATUS_UNSUPPORTED`
 * before.
 */
luna_status luna_vlm_get_info(struct luna_vlm vlm,
                              struct luna_vlm_info *info);

/**
 * Answers a question about pictures, or without any, or goes on with a conversation or a prepared prompt. `answer` gets a list of one `luna_generated`. `options` and
 * `report` may be NULL.
 */
luna_status luna_vlm_generate(struct luna_vlm vlm,
                              const struct luna_question *question,
                              const struct luna_generate_options *options,
                              struct luna_list *answer,
                              struct luna_report *report);

/**
 * Frees a vision-language model's handle. The model stays in memory for the next one, as the session's budget allows.
 */
luna_status luna_vlm_free(struct luna_vlm vlm);

/**
 * Takes pictures in to be saved below the session's output folder, or a daemon's, and returns before they are. `id` gets the job's
 * number, which is never given twice.
 */
luna_status luna_save_submit(struct luna_session session,
                             const struct luna_save_job *save_job,
                             uint64_t *id);

/**
 * Waits until a save job is finished, or for at most so many milliseconds, and tells how it stands then. A timeout of 0
 * does not wait; a negative one waits for as long as it takes.
 */
luna_status luna_save_wait(struct luna_session session,
                           uint64_t id,
                           int64_t timeout_ms,
                           struct luna_save_status *status);

/**
 * Lists the pictures of a save job with what became of them.
 */
luna_status luna_save_list_pictures(struct luna_session session, uint64_t id, struct luna_list *list);

/**
 * One picture of such a list.
 */
luna_status luna_list_picture(struct luna_list list, size_t index, struct luna_save_picture *picture);

/**
 * Lists the save jobs that wait, are worked on or are still remembered, the latest first.
 */
luna_status luna_save_list_jobs(struct luna_session session, struct luna_list *list);

/**
 * One job of such a list.
 */
luna_status luna_list_job(struct luna_list list, size_t index, struct luna_save_status *status);

/**
 * Cancels what has not been written of a save job.
 */
luna_status luna_save_cancel(struct luna_session session, uint64_t id);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LUNA_H */
