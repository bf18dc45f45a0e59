// What luna.hpp asks for, each in two ways that must give the same: asks LORA_FOLDER VLM.
#include <luna.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

static bool same(const luna::Tensor &one, const luna::Tensor &other) {
    return one.shape() == other.shape() && std::equal(one.begin(), one.end(), other.begin());
}

static void tell(const char *what, bool holds) { std::printf("%s: %s\n", what, holds ? "yes" : "no"); }

static void prompts(const luna::Session &session) {
    luna::Text text = session.text();
    luna_text_options tagged{}, by_hand{};
    luna::Loras loras = session.tagged_loras({"a fox<lora:ink:0.8>", "<lora:oops:x>"});
    luna::Loras named = session.loras({luna::Lora::named("ink", 0.8, 0.8)});
    tagged.loras = loras.get(), tagged.lora_tags = 1, by_hand.loras = named.get();
    auto fox = text.encode({"a fox"}), inked = text.encode({"a fox"}, by_hand);
    tell("a tag is its LoRA", same(text.encode({"a fox<lora:ink:0.8>"}, tagged)[0].tokens, inked[0].tokens));
    tell("which changes something", !same(fox[0].tokens, inked[0].tokens));
    std::vector<luna::LoraTag> tags = loras.tags();
    tell("tags are told", tags.size() == 2 && tags[0].name == "ink" && tags[0].clip == 0.8 && tags[1].prompt == 1 &&
                              tags[1].malformed == "<lora:oops:x>" && loras.adapters().size() == 1);
    luna::Prompt own;
    own.text = "a lighthouse", own.clip_l = "a fox";
    tell("an encoder reads its own text", same(text.encode_prompts({own})[0].tokens, fox[0].tokens));

    std::vector<std::int64_t> ids(2 * 77, 49407);
    ids[0] = ids[77] = 49406, ids[1] = 320;
    luna_view row{};
    row.data = ids.data(), row.dtype = LUNA_DTYPE_I64, row.rank = 1, row.shape[0] = 77;
    luna_view rows = row;
    rows.rank = 2, rows.shape[0] = 2, rows.shape[1] = 77;
    auto both = text.encode_ids(rows);
    tell("rows are rows", both.size() == 2 && same(both[0].tokens, text.encode_ids(row)[0].tokens) &&
                              !same(both[0].tokens, both[1].tokens));
}

static void answers(const luna::Session &session, const char *path) {
    luna::Vlm vlm = session.vlm(path);
    auto options = luna::make<luna_generate_options>();
    options.max_tokens = 5, options.ignore_end = 1;
    std::vector<float> pixels(48 * 64 * 3, 0.25F);
    luna_view image = luna::view(pixels.data(), {1, 48, 64, 3});
    luna::Generated asked = vlm.generate("What is it?", {image}, options);
    luna::Message turn{LUNA_ROLE_USER, {luna::Message::picture(image), luna::Message::words("What is it?")}};
    tell("a conversation of one turn is a question", vlm.chat({turn}, options).ids == asked.ids);
    std::vector<std::int32_t> ids{101, 7, 30, 12};
    luna::PreparedPrompt prepared;
    prepared.input_ids.data = ids.data(), prepared.input_ids.dtype = LUNA_DTYPE_I32;
    prepared.input_ids.rank = 1, prepared.input_ids.shape[0] = 4;
    tell("ids are read", vlm.generate_prepared(prepared, options).ids.size() == 5);
    try {
        vlm.chat({});
    } catch (const luna::Error &error) {
        tell("nobody's conversation is refused", error.status() == LUNA_STATUS_INVALID_INPUT);
    }
}

static void models(const luna::Session &session) {
    auto half = luna::make<luna_vae_load_options>();
    half.halves = LUNA_HALVES_ENCODER;
    luna::Vae whole = session.vae(), encoder = session.vae("moonlet", half);
    std::vector<float> pixels(256 * 256 * 3, 0.5F);
    luna_view image = luna::view(pixels.data(), {1, 256, 256, 3});
    tell("half a VAE encodes", same(whole.encode(image).tensor, encoder.encode(image).tensor));
    luna::Call late({}, std::chrono::milliseconds(1));
    try {
        whole.encode(image, {}, &late);
    } catch (const luna::Error &error) {
        tell("a deadline passes", error.status() == LUNA_STATUS_DEADLINE);
    }
}

int main(int, char **arguments) {
    const char *folders[] = {arguments[1]};
    auto options = luna::make<luna_open_options>();
    options.lora_folders = folders, options.lora_folder_count = 1;
    luna::Session session(options);
    prompts(session);
    answers(session, arguments[2]);
    models(session);
    return 0;
}
