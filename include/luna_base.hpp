// What luna.hpp stands on: errors as exceptions, handles that free themselves, tensors, calls that are watched, lists.
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef LUNA_BASE_HPP
#define LUNA_BASE_HPP

#include "luna.h"

#include <chrono>
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

/// Cancels calls and hears their progress. What the listener throws cancels the call, which throws it in turn. Each call
/// with a `deadline` other than 0 ends with LUNA_STATUS_DEADLINE that long after its start.
class Call {
public:
    using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

    explicit Call(Progress progress = {}, std::chrono::milliseconds deadline = {})
        : state_(std::make_unique<State>()) {
        state_->progress = std::move(progress);
        auto options = make<luna_call_options>();
        if (deadline.count() < 0) throw std::invalid_argument("a deadline before the call's start");
        options.deadline_ms = static_cast<std::uint64_t>(deadline.count());
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

    /// Runs a listener: what it throws is kept for `check_status`, and cancels the call; it hears no more then.
    template <typename Listener> void guard(Listener listener) noexcept { run(*state_, listener); }

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
        run(*state, [&] { state->progress(done, total); });
    }
    template <typename Listener> static void run(State &state, Listener listener) noexcept {
        {
            std::lock_guard<std::mutex> lock(state.mutex);
            if (state.thrown) return;
        }
        try {
            listener();
        } catch (...) {
            std::lock_guard<std::mutex> lock(state.mutex);
            if (!state.thrown) state.thrown = std::current_exception();
            luna_call_cancel(state.handle.get());
        }
    }
    std::unique_ptr<State> state_;
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
inline std::vector<const char *> pointers(const std::vector<std::string> &texts) {
    std::vector<const char *> pointers;
    for (const std::string &text : texts) pointers.push_back(text.c_str());
    return pointers;
}
} // namespace detail

/// A list of luna.h that frees itself.
using List = Owned<luna_list, luna_list_free>;

/// Items of a list of luna.h: `get` is such as `luna_list_resident`, `make` makes a value of each. Frees the list.
template <typename Record, typename Get, typename Make> auto read_list(luna_list handle, Get get, Make make_value) {
    List list(handle);
    std::vector<decltype(make_value(Record{}))> items;
    std::size_t count = 0;
    check(luna_list_count(handle, &count));
    for (std::size_t index = 0; index < count; index++) {
        auto record = make<Record>();
        check(get(handle, index, &record));
        items.push_back(make_value(record));
    }
    return items;
}

} // namespace luna

#endif // LUNA_BASE_HPP
