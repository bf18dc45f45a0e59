// Luna for C++17: RAII and exceptions over luna.h. Header-only; link with libluna. What the calls do stands in luna.h.
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef LUNA_HPP
#define LUNA_HPP

#include "luna.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace luna {

/// What a call failed with. `what()` is the whole sentence.
class Error : public std::runtime_error {
public:
    Error(luna_status status, const luna_error &told)
        : std::runtime_error(told.text ? told.text : luna_status_name(status)), status_(status),
          remedy_(told.remedy ? told.remedy : "") {}

    /// Whose fault it is.
    luna_status status() const noexcept { return status_; }
    /// What the caller can do; empty where there is nothing to say.
    const std::string &remedy() const noexcept { return remedy_; }

private:
    luna_status status_;
    std::string remedy_;
};

/// Throws what a function of luna.h failed with.
inline void check(luna_status status) {
    if (status == LUNA_STATUS_OK) return;
    luna_error told{};
    told.size = sizeof told;
    luna_last_error(&told);
    throw Error(status, told);
}

/// A struct of luna.h, all zeros but its size.
template <typename Record> Record make() {
    Record record{};
    record.size = sizeof record;
    return record;
}

/// A handle that frees itself. Moves, but does not copy.
template <typename Handle, luna_status (*Free)(Handle)> class Owned {
public:
    Owned() = default;
    explicit Owned(Handle handle) noexcept : handle_(handle) {}
    Owned(Owned &&other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
    Owned &operator=(Owned &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Owned(const Owned &) = delete;
    Owned &operator=(const Owned &) = delete;
    ~Owned() {
        if (handle_.table != 0) Free(handle_);
    }

    /// The handle of luna.h; it stays this object's.
    Handle get() const noexcept { return handle_; }
    /// Where a function of luna.h puts a new handle.
    Handle *out() noexcept { return &handle_; }
    /// Whether there is one.
    explicit operator bool() const noexcept { return handle_.table != 0; }

protected:
    Handle handle_{};
};

/// A caller's row-major floats of this shape; the memory stays the caller's.
inline luna_view view(const float *data, std::initializer_list<std::int64_t> shape) {
    luna_view view{};
    if (shape.size() > LUNA_MAX_RANK) throw std::invalid_argument("too many dimensions");
    view.data = data;
    for (std::int64_t side : shape) view.shape[view.rank++] = side;
    return view;
}

/// Numbers that Luna computed, viewed where they are.
class Tensor : public Owned<luna_tensor, luna_tensor_free> {
public:
    using Owned::Owned;

    /// Where they lie, for as long as this lives; hand it to other calls.
    luna_view view() const {
        luna_view view{};
        check(luna_tensor_view(handle_, &view));
        return view;
    }
    /// The shape.
    std::vector<std::int64_t> shape() const {
        luna_view own = view();
        return {own.shape, own.shape + own.rank};
    }
    /// How many there are.
    std::size_t size() const {
        std::size_t count = 1;
        for (std::int64_t side : shape()) count *= static_cast<std::size_t>(side);
        return count;
    }
    /// The values, row-major; not for masks, which are bytes.
    const float *data() const {
        luna_view own = view();
        if (own.dtype != LUNA_DTYPE_F32) throw std::logic_error("the tensor holds no floats");
        return static_cast<const float *>(own.data);
    }
    const float *begin() const { return data(); }
    const float *end() const { return data() + size(); }
};

/// Cancels calls and hears their progress. What the listener throws cancels the call, which throws it in turn.
class Call {
public:
    using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

    explicit Call(Progress progress = {}) : state_(std::make_unique<State>()) {
        state_->progress = std::move(progress);
        auto options = make<luna_call_options>();
        if (state_->progress) options.progress = &Call::hear;
        options.user_data = state_.get();
        check(luna_call_new(&options, state_->handle.out()));
    }
    /// Asks every call that has this to stop, from any thread.
    void cancel() { check(luna_call_cancel(state_->handle.get())); }
    /// The handle of luna.h, for options.
    luna_call get() const noexcept { return state_->handle.get(); }
    /// Throws what a call with this failed with, what the listener threw first of all.
    void check_status(luna_status status) {
        std::exception_ptr thrown;
        {
            std::lock_guard<std::mutex> lock(state_->mutex);
            std::swap(thrown, state_->thrown);
        }
        if (thrown) std::rethrow_exception(thrown);
        check(status);
    }

private:
    struct State {
        Progress progress;
        Owned<luna_call, luna_call_free> handle;
        std::mutex mutex;
        std::exception_ptr thrown;
    };
    // No exception may leave a callback.
    static void hear(std::uint64_t done, std::uint64_t total, void *user_data) noexcept {
        auto *state = static_cast<State *>(user_data);
        try {
            state->progress(done, total);
        } catch (...) {
            std::lock_guard<std::mutex> lock(state->mutex);
            if (!state->thrown) state->thrown = std::current_exception();
            luna_call_cancel(state->handle.get());
        }
    }
    std::unique_ptr<State> state_;
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
        std::vector<std::string> problems;
        if (handle.table == 0) return problems;
        Owned<luna_list, luna_list_free> list(handle);
        std::size_t count = 0;
        check(luna_list_count(handle, &count));
        for (std::size_t index = 0; index < count; index++) {
            auto problem = make<luna_problem>();
            check(luna_list_problem(handle, index, &problem));
            problems.emplace_back(problem.text);
        }
        return problems;
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
    /// One step of a sampler: the network's raw prediction.
    Result forward(luna_forward_input input, luna_forward_options options = {}, Call *call = nullptr) const {
        Result made;
        input.size = sizeof input;
        options = detail::with(options, call);
        detail::end(call, luna_model_forward(handle_, &input, &options, made.tensor.out(), &made.report));
        return made;
    }
};

/// One copy of each model, in this process.
class Session : public Owned<luna_session, luna_close> {
public:
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
    /// What the session holds and has done.
    luna_stats stats() const {
        auto stats = make<luna_stats>();
        check(luna_get_stats(handle_, &stats));
        return stats;
    }
};

/// A PNG, JPEG or WebP as [1, height, width, channels] in 0..1.
inline Tensor read_picture(const std::string &path) {
    Tensor image;
    check(luna_picture_read(path.c_str(), image.out()));
    return image;
}

} // namespace luna

#endif // LUNA_HPP
