// Of luna.hpp: vision-language models.
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef LUNA_VLM_HPP
#define LUNA_VLM_HPP

#include "luna_base.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace luna {

/// What a vision-language model answered.
struct Generated {
    std::string text;
    std::vector<std::uint32_t> ids;
    luna_finish finish = LUNA_FINISH_END_OF_TURN;
    luna_report report = make<luna_report>();
};

/// One turn of a conversation: words and pictures, in order.
struct Message {
    struct Part {
        std::string text;
        std::optional<luna_view> image;
    };
    static Part words(std::string text) { return {std::move(text), {}}; }
    /// A picture, [batch, height, width, channels] in 0..1; its memory stays the caller's.
    static Part picture(const luna_view &image) { return {{}, image}; }

    luna_role role = LUNA_ROLE_USER;
    std::vector<Part> parts;
};

/// A prompt as transformers' processors make it; its memory stays the caller's.
struct PreparedPrompt {
    luna_view input_ids{};
    /// Patches with `image_grid_thw`, or whole pictures without.
    std::optional<luna_view> pixel_values, image_grid_thw;
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
        std::vector<const luna_view *> views = detail::pointers(images);
        auto question = make<luna_question>();
        question.prompt = prompt.c_str(), question.images = views.data(), question.image_count = views.size();
        return run(question, options, std::move(piece), call);
    }
    /// Goes on with a conversation.
    Generated chat(const std::vector<Message> &messages, luna_generate_options options = {}, Piece piece = {},
                   Call *call = nullptr) const {
        std::vector<std::vector<luna_message_part>> parts;
        std::vector<luna_message> turns;
        for (const Message &message : messages) {
            parts.emplace_back();
            for (const Message::Part &part : message.parts)
                parts.back().push_back({part.image ? nullptr : part.text.c_str(), part.image ? &*part.image : nullptr});
            turns.push_back({message.role, 0, parts.back().data(), parts.back().size()});
        }
        auto question = make<luna_question>();
        // An empty conversation is one, too, and is refused in words.
        static const luna_message none{};
        question.messages = turns.empty() ? &none : turns.data(), question.message_count = turns.size();
        return run(question, options, std::move(piece), call);
    }
    /// Goes on with a prepared prompt.
    Generated generate_prepared(const PreparedPrompt &prompt, luna_generate_options options = {}, Piece piece = {},
                                Call *call = nullptr) const {
        auto question = make<luna_question>();
        question.input_ids = &prompt.input_ids;
        question.pixel_values = prompt.pixel_values ? &*prompt.pixel_values : nullptr;
        question.image_grid_thw = prompt.image_grid_thw ? &*prompt.image_grid_thw : nullptr;
        return run(question, options, std::move(piece), call);
    }

private:
    struct Listener {
        Piece piece;
        Call *call;
    };
    Generated run(const luna_question &question, luna_generate_options options, Piece piece, Call *call) const {
        Call own;
        Call *watched = call ? call : &own;
        Listener listener{std::move(piece), watched};
        options = detail::with(options, watched);
        if (listener.piece) options.piece = &Vlm::hear, options.user_data = &listener;
        Generated answer;
        // An answer is there also where the listener threw at its last token.
        List list;
        detail::end(watched, luna_vlm_generate(handle_, &question, &options, list.out(), &answer.report));
        auto told = make<luna_generated>();
        check(luna_list_generated(list.get(), 0, &told));
        answer.text = told.text;
        answer.ids.assign(told.ids, told.ids + told.id_count);
        answer.finish = static_cast<luna_finish>(told.finish);
        return answer;
    }
    // No exception may leave a callback. Once one was thrown the listener hears no more.
    static void hear(std::uint32_t id, const char *text, void *user_data) noexcept {
        auto *listener = static_cast<Listener *>(user_data);
        listener->call->guard([&] { listener->piece(id, text); });
    }
};

} // namespace luna

#endif // LUNA_VLM_HPP
