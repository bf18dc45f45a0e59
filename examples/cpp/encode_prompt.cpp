// Encodes prompts with the text encoder that the library carries. Its weights are random.
#include <luna.hpp>

#include <cstdio>

int main() try {
    luna::Session session;
    luna::Text text = session.text();
    std::vector<luna::Conditioning> encoded = text.encode({"a (red:1.3) fox", "blurry"});
    for (const luna::Conditioning &prompt : encoded)
        std::printf("%d tokens of %d channels, pooled: %s\n", static_cast<int>(prompt.tokens.shape()[1]),
                    static_cast<int>(prompt.tokens.shape()[2]), prompt.pooled ? "yes" : "no");
} catch (const luna::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
