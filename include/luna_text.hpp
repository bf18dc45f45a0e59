// Of luna.hpp: stacks of LoRAs, and text encoders.
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef LUNA_TEXT_HPP
#define LUNA_TEXT_HPP

#include "luna_base.hpp"

#include <cstddef>
#include <optional>
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

/// One `<lora:name:model:clip>` of a prompt; one that could not be read has only `malformed`, as it was written.
struct LoraTag {
    /// The number of the prompt that it stands in, from 0.
    std::size_t prompt = 0;
    std::string name;
    double model = 0, clip = 0;
    std::string malformed;
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
    /// The tags in the prompts that the stack was made with.
    std::vector<LoraTag> tags() const {
        luna_list list{};
        check(luna_loras_list_tags(handle_, &list));
        return read_list<luna_lora_tag>(list, luna_list_lora_tag, [](const luna_lora_tag &told) {
            LoraTag tag;
            tag.prompt = static_cast<std::size_t>(told.prompt), tag.model = told.model, tag.clip = told.clip;
            tag.name = told.name ? told.name : "", tag.malformed = told.malformed ? told.malformed : "";
            return tag;
        });
    }
};

/// An encoded prompt; what it does not have is empty.
struct Conditioning {
    Tensor tokens, pooled, mask;
    /// Textual inversions that were left out, each with why.
    std::vector<std::string> problems;
};

/// A prompt, and what some encoders read in its place.
struct Prompt {
    std::string text;
    std::optional<std::string> clip_l, clip_g, t5;
};

/// The text encoders of a diffusion model.
class Text : public Owned<luna_text, luna_text_free> {
public:
    using Owned::Owned;

    /// Prompts in one batch. With `options.lora_tags` their tags are taken out; `options.loras` is then the stack that
    /// `Session::tagged_loras` made of them.
    std::vector<Conditioning> encode(const std::vector<std::string> &prompts, luna_text_options options = {},
                                     Call *call = nullptr) const {
        std::vector<const char *> texts = detail::pointers(prompts);
        return run(texts.size(), options, call, [&](const luna_text_options &own, luna_conditioning *places) {
            return luna_text_encode(handle_, texts.data(), texts.size(), &own, places, nullptr);
        });
    }
    /// As `encode`, with a text of its own for some encoders.
    std::vector<Conditioning> encode_prompts(const std::vector<Prompt> &prompts, luna_text_options options = {},
                                             Call *call = nullptr) const {
        std::vector<const char *> texts, clip_l, clip_g, t5;
        auto other = [](const std::optional<std::string> &text) { return text ? text->c_str() : nullptr; };
        for (const Prompt &prompt : prompts) {
            texts.push_back(prompt.text.c_str()), clip_l.push_back(other(prompt.clip_l));
            clip_g.push_back(other(prompt.clip_g)), t5.push_back(other(prompt.t5));
        }
        options.clip_l_prompts = clip_l.data(), options.clip_g_prompts = clip_g.data(), options.t5_prompts = t5.data();
        return run(texts.size(), options, call, [&](const luna_text_options &own, luna_conditioning *places) {
            return luna_text_encode(handle_, texts.data(), texts.size(), &own, places, nullptr);
        });
    }
    /// Token ids, [tokens] or [rows, tokens], in place of prompts; `options.attention_mask` says which count.
    std::vector<Conditioning> encode_ids(const luna_view &ids, luna_text_options options = {},
                                         Call *call = nullptr) const {
        std::size_t rows = ids.rank == 2 && ids.shape[0] > 0 ? static_cast<std::size_t>(ids.shape[0]) : 1;
        return run(rows, options, call, [&](const luna_text_options &own, luna_conditioning *places) {
            return luna_text_encode_ids(handle_, &ids, &own, places, nullptr);
        });
    }

private:
    template <typename Encode>
    static std::vector<Conditioning> run(std::size_t count, luna_text_options options, Call *call, Encode encode) {
        std::vector<luna_conditioning> places(count);
        options = detail::with(options, call);
        luna_status status = encode(options, places.data());
        // Taken over before anything is thrown, so that nothing is left behind.
        std::vector<Conditioning> encoded;
        for (const luna_conditioning &place : places)
            encoded.push_back({Tensor(place.tokens), Tensor(place.pooled), Tensor(place.mask), read(place.problems)});
        detail::end(call, status);
        return encoded;
    }
    static std::vector<std::string> read(luna_list handle) {
        if (handle.table == 0) return {};
        auto text = [](const luna_problem &problem) { return std::string(problem.text); };
        return read_list<luna_problem>(handle, luna_list_problem, text);
    }
};

} // namespace luna

#endif // LUNA_TEXT_HPP
