// What listeners throw, as a program in C++ meets it: throws MODEL.
#include <luna.hpp>

#include <cstdio>
#include <stdexcept>
#include <vector>

// An exception of the program's own, which must arrive as what it is.
struct Enough : std::runtime_error {
    explicit Enough(int count) : std::runtime_error("enough"), count(count) {}
    int count;
};

static std::uint64_t handles(const luna::Session &session) { return session.stats().handles; }

static void progress(const luna::Session &session) {
    luna::Vae vae = session.vae();
    std::vector<float> pixels(256 * 256 * 3, 0.5F);
    int heard = 0;
    luna::Call call([&](std::uint64_t, std::uint64_t) {
        if (++heard == 3) throw Enough(heard);
    });
    try {
        vae.encode(luna::view(pixels.data(), {1, 256, 256, 3}), {}, &call);
    } catch (const Enough &error) {
        // It hears no more once it has thrown.
        std::printf("progress: %d of %s\n", error.count, heard == 3 ? "several" : "too many");
    }
}

static void piece(const luna::Vlm &vlm, const char *name, std::uint32_t most, int last) {
    auto options = luna::make<luna_generate_options>();
    options.max_tokens = most, options.ignore_end = 1;
    int heard = 0;
    try {
        vlm.generate("What is it?", {}, options, [&](std::uint32_t, const char *) {
            if (++heard == last) throw Enough(heard);
        });
        std::printf("%s: nothing was thrown\n", name);
    } catch (const Enough &error) {
        std::printf("%s: %d pieces\n", name, error.count == heard ? heard : -1);
    }
}

int main(int, char **arguments) {
    luna::Session session;
    luna::Vlm vlm = session.vlm(arguments[1]);
    std::uint64_t before = handles(session);
    progress(session);
    piece(vlm, "piece", 200, 2);
    // At the last token there is an answer, which must not be left behind.
    piece(vlm, "last piece", 1, 1);
    try {
        luna::Message turn{LUNA_ROLE_USER, {luna::Message::words("What is it?")}};
        vlm.chat({turn}, {}, [](std::uint32_t, const char *) { throw 7; });
    } catch (int thrown) {
        std::printf("an int: %d\n", thrown);
    }
    std::printf("%d handles left\n", static_cast<int>(handles(session) - before));
    return 0;
}
