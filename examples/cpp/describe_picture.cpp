// Has a vision-language model describe a picture, and prints the words as they come. The model is given as a folder.
#include <luna.hpp>

#include <cstdio>

int main(int argc, char **argv) try {
    if (argc != 2) return 1;
    luna::Session session;
    luna::Vlm vlm = session.vlm(argv[1]);
    std::vector<float> pixels(48 * 64 * 3, 0.25F);
    luna_generate_options options{};
    options.max_tokens = 8;
    auto print = [](std::uint32_t, const char *text) { std::fputs(text, stdout); };
    std::vector<luna_view> images{luna::view(pixels.data(), {1, 48, 64, 3})};
    luna::Generated answer = vlm.generate("Describe this picture.", images, options, print);
    std::printf("\n%zu tokens\n", answer.ids.size());
} catch (const luna::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
