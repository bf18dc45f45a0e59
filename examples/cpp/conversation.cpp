// Asks a vision-language model about a picture, and then asks on. The model is given as a folder.
#include <luna.hpp>

#include <chrono>
#include <cstdio>
#include <vector>

int main(int argc, char **argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: conversation MODEL\n"), 1;
    luna::Session session;
    luna::Vlm vlm = session.vlm(argv[1]);
    std::vector<float> pixels(48 * 64 * 3, 0.5F);
    luna_view image = luna::view(pixels.data(), {1, 48, 64, 3});

    auto options = luna::make<luna_generate_options>();
    options.max_tokens = 8;
    luna::Call call({}, std::chrono::minutes(10));
    std::vector<luna::Message> messages = {
        {LUNA_ROLE_USER, {luna::Message::picture(image), luna::Message::words("What is it?")}}};
    for (const char *next : {"And what else?", ""}) {
        luna::Generated answer = vlm.chat(messages, options, {}, &call);
        std::printf("%d turns, %d tokens more\n", static_cast<int>(messages.size()), static_cast<int>(answer.ids.size()));
        messages.push_back({LUNA_ROLE_ASSISTANT, {luna::Message::words(answer.text)}});
        messages.push_back({LUNA_ROLE_USER, {luna::Message::words(next)}});
    }
}
