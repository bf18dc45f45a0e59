// Luna for C++17: RAII and exceptions over luna.h. Header-only; link with libluna. What the calls do stands in luna.h.
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef LUNA_HPP
#define LUNA_HPP

#include "luna_base.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace luna {

/// One LoRA of a stack: a path, a name in the session's `lora_folders`, or the bytes of a file.
struct Lora {
    /// A file or a PEFT folder.
    static Lora file(std::string path, double model = 1, double clip = 1) { return {std::move(path), {}, {}, model, clip}; }
    /// A name.
    static Lora named(std::string name, double model = 1, double clip = 1) { return {{}, std::move(name), {}, model, clip}; }

    std::string path, name;
    std::vector<unsigned char> data;
    double model = 1, clip = 1;
};

/// What became of one adapter of a LoRA.
struct Adapter {
    std::string file, model, key;
    luna_lora_outcome outcome = LUNA_LORA_OUTCOME_APPLIED;
    std::vector<std::string> targets;
    std::string kind, nearest, expected, found, what;
};

/// A stack of LoRAs for the options of calls: `options.loras = loras.get()`.
class Loras : public Owned<luna_loras, luna_loras_free> {
public:
    using Owned::Owned;

    /// What became of each adapter on each model that the stack was used with.
    std::vector<Adapter> adapters() const {
        luna_list list{};
        check(luna_loras_list_adapters(handle_, &list));
        return read_list<luna_lora_adapter>(list, luna_list_lora_adapter, [](const luna_lora_adapter &told) {
            auto text = [](const char *own) { return std::string(own ? own : ""); };
            Adapter adapter;
            adapter.file = text(told.file), adapter.model = text(told.model), adapter.key = text(told.key);
            adapter.outcome = static_cast<luna_lora_outcome>(told.outcome);
            adapter.targets.assign(told.targets, told.targets + told.target_count);
            adapter.kind = text(told.kind), adapter.nearest = text(told.nearest), adapter.what = text(told.what);
            adapter.expected = text(told.expected), adapter.found = text(told.found);
            return adapter;
        });
    }
};

/// A tensor and how it was made.
struct Result {
    Tensor tensor;
    luna_report report = make<luna_report>();
};

namespace detail {
inline void end(Call *call, luna_status status) { call ? call->check_status(status) : check(status); }
template <typename Options> Options with(Options options, Call *call) {
    options.size = sizeof options;
    if (call) options.call = call->get();
    return options;
}
inline std::vector<const luna_view *> pointers(const std::vector<luna_view> &views) {
    std::vector<const luna_view *> pointers;
    for (const luna_view &view : views) pointers.push_back(&view);
    return pointers;
}
} // namespace detail

/// A VAE.
class Vae : public Owned<luna_vae, luna_vae_free> {
public:
    using Owned::Owned;

    /// What is known of it.
    luna_vae_info info() const {
        auto info = make<luna_vae_info>();
        check(luna_vae_get_info(handle_, &info));
        return info;
    }
    /// Pictures, [batch, height, width, channels] in 0..1, to latents.
    Result encode(const luna_view &image, luna_encode_options options = {}, Call *call = nullptr) const {
        Result made;
        options = detail::with(options, call);
        detail::end(call, luna_vae_encode(handle_, &image, &options, made.tensor.out(), &made.report));
        return made;
    }
    /// Latents, [batch, channels, height, width], to pictures.
    Result decode(const luna_view &latent, luna_decode_options options = {}, Call *call = nullptr) const {
        Result made;
        options = detail::with(options, call);
        detail::end(call, luna_vae_decode(handle_, &latent, &options, made.tensor.out(), &made.report));
        return made;
    }
};

/// An encoded prompt; what it does not have is empty.
struct Conditioning {
    Tensor tokens, pooled, mask;
    /// Textual inversions that were left out, each with why.
    std::vector<std::string> problems;
};

/// The text encoders of a diffusion model.
class Text : public Owned<luna_text, luna_text_free> {
public:
    using Owned::Owned;

    /// Prompts in one batch.
    std::vector<Conditioning> encode(const std::vector<std::string> &prompts, luna_text_options options = {},
                                     Call *call = nullptr) const {
        std::vector<const char *> texts;
        for (const std::string &prompt : prompts) texts.push_back(prompt.c_str());
        std::vector<luna_conditioning> places(prompts.size());
        options = detail::with(options, call);
        detail::end(call, luna_text_encode(handle_, texts.data(), texts.size(), &options, places.data(), nullptr));
        std::vector<Conditioning> encoded;
        for (const luna_conditioning &place : places)
            encoded.push_back({Tensor(place.tokens), Tensor(place.pooled), Tensor(place.mask), read(place.problems)});
        return encoded;
    }

private:
    static std::vector<std::string> read(luna_list handle) {
        if (handle.table == 0) return {};
        auto text = [](const luna_problem &problem) { return std::string(problem.text); };
        return read_list<luna_problem>(handle, luna_list_problem, text);
    }
};

/// A denoiser.
class Model : public Owned<luna_model, luna_model_free> {
public:
    using Owned::Owned;

    /// What it takes and gives.
    luna_model_info info() const {
        auto info = make<luna_model_info>();
        check(luna_model_get_info(handle_, &info));
        return info;
    }
    /// The `y` that belongs to pooled text: empty for a model that takes none. SDXL is told `sizes`.
    Tensor pooled(const luna_view &text, luna_picture_sizes sizes = {}) const {
        Tensor y;
        sizes.size = sizeof sizes;
        check(luna_model_pooled(handle_, &text, sizes.width ? &sizes : nullptr, y.out()));
        return y;
    }
    /// One step of a sampler: the network's raw prediction.
    Result forward(luna_forward_input input, luna_forward_options options = {}, Call *call = nullptr) const {
        Result made;
        input.size = sizeof input;
        options = detail::with(options, call);
        detail::end(call, luna_model_forward(handle_, &input, &options, made.tensor.out(), &made.report));
        return made;
    }
};

/// What a vision encoder makes of pictures; what a model does not give is empty.
struct Features {
    Tensor last_hidden_state, penultimate, pooler_output, image_embeds;
};

/// A vision encoder.
class Vision : public Owned<luna_vision, luna_vision_free> {
public:
    using Owned::Owned;

    /// What is known of it.
    luna_vision_info info() const {
        auto info = make<luna_vision_info>();
        check(luna_vision_get_info(handle_, &info));
        return info;
    }
    /// Pictures of any size, as one batch.
    Features encode(const std::vector<luna_view> &images, luna_vision_options options = {}, Call *call = nullptr) const {
        luna_features made{};
        std::vector<const luna_view *> views = detail::pointers(images);
        options = detail::with(options, call);
        luna_status status = luna_vision_encode(handle_, views.data(), views.size(), &options, &made, nullptr);
        Features features{Tensor(made.last_hidden_state), Tensor(made.penultimate), Tensor(made.pooler_output),
                          Tensor(made.image_embeds)};
        detail::end(call, status);
        return features;
    }
};

/// What a vision-language model answered.
struct Generated {
    std::string text;
    std::vector<std::uint32_t> ids;
    luna_finish finish = LUNA_FINISH_END_OF_TURN;
    luna_report report = make<luna_report>();
};

/// A vision-language model.
class Vlm : public Owned<luna_vlm, luna_vlm_free> {
public:
    using Owned::Owned;
    using Piece = std::function<void(std::uint32_t id, const char *text)>;

    /// What is known of it.
    luna_vlm_info info() const {
        auto info = make<luna_vlm_info>();
        check(luna_vlm_get_info(handle_, &info));
        return info;
    }
    /// Answers a question about pictures, or without any. `piece` hears each token as it comes; what it throws ends the
    /// call, which throws it in turn.
    Generated generate(const std::string &prompt, const std::vector<luna_view> &images = {},
                       luna_generate_options options = {}, Piece piece = {}, Call *call = nullptr) const {
        Call own;
        Call *watched = call ? call : &own;
        Listener listener{std::move(piece), watched};
        options = detail::with(options, watched);
        if (listener.piece) options.piece = &Vlm::hear, options.user_data = &listener;
        std::vector<const luna_view *> views = detail::pointers(images);
        auto question = make<luna_question>();
        question.prompt = prompt.c_str(), question.images = views.data(), question.image_count = views.size();
        Generated answer;
        luna_list list{};
        detail::end(watched, luna_vlm_generate(handle_, &question, &options, &list, &answer.report));
        read_list<luna_generated>(list, luna_list_generated, [&](const luna_generated &told) {
            answer.text = told.text;
            answer.ids.assign(told.ids, told.ids + told.id_count);
            answer.finish = static_cast<luna_finish>(told.finish);
            return 0;
        });
        return answer;
    }

private:
    struct Listener {
        Piece piece;
        Call *call;
    };
    // No exception may leave a callback.
    static void hear(std::uint32_t id, const char *text, void *user_data) noexcept {
        auto *listener = static_cast<Listener *>(user_data);
        listener->call->guard([&] { listener->piece(id, text); });
    }
};

/// One copy of each model, in this process or in a daemon.
class Session : public Owned<luna_session, luna_close> {
public:
    /// A daemon's models: the same functions. `address` is such as `127.0.0.1:19283`; that if it is empty.
    static Session connect(const std::string &address = {},
                           luna_connect_options options = make<luna_connect_options>()) {
        luna_session handle{};
        options.size = sizeof options;
        check(luna_connect(address.empty() ? nullptr : address.c_str(), &options, &handle));
        return Session(handle);
    }
    explicit Session(luna_open_options options = make<luna_open_options>()) {
        options.size = sizeof options;
        check(luna_open(&options, &handle_));
    }
    /// A VAE: a file or folder, or `moonlet`, which the library carries.
    Vae vae(const std::string &path = "moonlet") const {
        Vae vae;
        check(luna_vae_load(handle_, path.c_str(), vae.out()));
        return vae;
    }
    /// Text encoders: files or folders, or `demo`, which the library carries.
    Text text(const std::vector<std::string> &paths = {"demo"},
              luna_text_load_options options = make<luna_text_load_options>()) const {
        std::vector<const char *> names;
        for (const std::string &path : paths) names.push_back(path.c_str());
        Text text;
        options.size = sizeof options;
        check(luna_text_load(handle_, names.data(), names.size(), &options, text.out()));
        return text;
    }
    /// A denoiser.
    Model model(const std::string &path, luna_model_load_options options = make<luna_model_load_options>()) const {
        Model model;
        options.size = sizeof options;
        check(luna_model_load(handle_, path.c_str(), &options, model.out()));
        return model;
    }
    /// A vision encoder.
    Vision vision(const std::string &path) const {
        Vision vision;
        check(luna_vision_load(handle_, path.c_str(), vision.out()));
        return vision;
    }
    /// A vision-language model.
    Vlm vlm(const std::string &path, luna_vlm_load_options options = make<luna_vlm_load_options>()) const {
        Vlm vlm;
        options.size = sizeof options;
        check(luna_vlm_load(handle_, path.c_str(), &options, vlm.out()));
        return vlm;
    }
    /// A stack of LoRAs.
    Loras loras(const std::vector<Lora> &stack, luna_loras_options options = make<luna_loras_options>()) const {
        std::vector<luna_lora> entries;
        for (const Lora &lora : stack) {
            luna_lora entry{};
            if (!lora.path.empty()) entry.path = lora.path.c_str();
            if (!lora.name.empty()) entry.name = lora.name.c_str();
            if (!lora.data.empty()) entry.data = lora.data.data(), entry.data_bytes = lora.data.size();
            entry.model = lora.model, entry.clip = lora.clip;
            entries.push_back(entry);
        }
        Loras loras;
        options.size = sizeof options;
        check(luna_loras_new(handle_, entries.data(), entries.size(), &options, loras.out()));
        return loras;
    }
    /// What the session holds and has done.
    luna_stats stats() const {
        auto stats = make<luna_stats>();
        check(luna_get_stats(handle_, &stats));
        return stats;
    }
    /// Takes pictures in, to be saved; gives the job's number.
    std::uint64_t save(luna_save_job job) const {
        std::uint64_t id = 0;
        job.size = sizeof job;
        check(luna_save_submit(handle_, &job, &id));
        return id;
    }
    /// Waits for a job, for so many milliseconds or until it is finished, and tells how it stands.
    luna_save_status wait(std::uint64_t id, std::int64_t milliseconds = -1) const {
        auto status = make<luna_save_status>();
        check(luna_save_wait(handle_, id, milliseconds, &status));
        return status;
    }

private:
    explicit Session(luna_session handle) noexcept : Owned(handle) {}
};

/// The noise levels of so many steps of a Stable Diffusion UNet, and behind them the end without noise.
inline std::vector<luna_noise_level> noise_levels(std::size_t steps) {
    std::vector<luna_noise_level> levels(steps + 1);
    check(luna_noise_levels(steps, levels.data()));
    return levels;
}

/// A PNG, JPEG or WebP as [1, height, width, channels] in 0..1.
inline Tensor read_picture(const std::string &path) {
    Tensor image;
    check(luna_picture_read(path.c_str(), image.out()));
    return image;
}

} // namespace luna

#endif // LUNA_HPP
