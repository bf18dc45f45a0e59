// Luna for C++17: RAII and exceptions over luna.h. Header-only; link with libluna. What the calls do stands in luna.h.
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef LUNA_HPP
#define LUNA_HPP

#include "luna_base.hpp"
#include "luna_text.hpp"
#include "luna_vlm.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace luna {

/// A tensor and how it was made.
struct Result {
    Tensor tensor;
    luna_report report = make<luna_report>();
};

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
    Vae vae(const std::string &path = "moonlet", luna_vae_load_options options = make<luna_vae_load_options>()) const {
        Vae vae;
        options.size = sizeof options;
        check(luna_vae_load_with(handle_, path.c_str(), &options, vae.out()));
        return vae;
    }
    /// Text encoders: files or folders, or `demo`, which the library carries.
    Text text(const std::vector<std::string> &paths = {"demo"},
              luna_text_load_options options = make<luna_text_load_options>()) const {
        std::vector<const char *> names = detail::pointers(paths);
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
    Vision vision(const std::string &path,
                  luna_vision_load_options options = make<luna_vision_load_options>()) const {
        Vision vision;
        options.size = sizeof options;
        check(luna_vision_load_with(handle_, path.c_str(), &options, vision.out()));
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
    /// A stack of these LoRAs and of those that tags in the prompts name, in the session's `lora_folders` or the daemon's.
    Loras tagged_loras(const std::vector<std::string> &prompts, const std::vector<Lora> &stack = {},
                       luna_loras_options options = make<luna_loras_options>()) const {
        std::vector<const char *> texts = detail::pointers(prompts);
        options.prompts = texts.data(), options.prompt_count = texts.size();
        return loras(stack, options);
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
