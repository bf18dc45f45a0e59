// Encodes a prompt with a LoRA, and tells what became of each of its adapters. The LoRA is given as a file.
#include <luna.hpp>

#include <cstdio>

int main(int argc, char **argv) try {
    if (argc != 2) return 1;
    luna::Session session;
    luna::Text text = session.text();
    luna::Loras loras = session.loras({luna::Lora::file(argv[1], 0.8, 0.6)});
    luna_text_options options{};
    options.loras = loras.get();
    text.encode({"a red fox"}, options);
    for (const luna::Adapter &adapter : loras.adapters()) {
        const char *target = adapter.targets.empty() ? "nothing" : adapter.targets[0].c_str();
        std::printf("%s: %s for %s\n", adapter.file.c_str(), adapter.key.c_str(), target);
    }
} catch (const luna::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
