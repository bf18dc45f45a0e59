// Hears the progress of a call, and ends it half-way by an exception.
#include <luna.hpp>

#include <cstdio>
#include <stdexcept>
#include <vector>

int main() {
    luna::Session session;
    luna::Vae vae = session.vae();
    std::vector<float> pixels(96 * 64 * 3, 0.5F);
    luna_view image = luna::view(pixels.data(), {1, 96, 64, 3});

    std::uint64_t steps = 0;
    luna::Call watched([&](std::uint64_t, std::uint64_t total) { steps = total; });
    vae.encode(image, {}, &watched);
    std::printf("%d steps\n", static_cast<int>(steps));

    luna::Call impatient([](std::uint64_t done, std::uint64_t total) {
        if (2 * done > total) throw std::runtime_error("that takes too long");
    });
    try {
        vae.encode(image, {}, &impatient);
    } catch (const std::runtime_error &error) {
        std::printf("stopped: %s\n", error.what());
        return 0;
    }
    return 1;
}
