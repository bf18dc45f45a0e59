// Encodes a picture with the VAE that the library carries, and decodes the latent again.
#include <luna.hpp>

#include <cstdio>
#include <vector>

int main() try {
    luna::Session session;
    luna::Vae vae = session.vae();

    std::vector<float> pixels(48 * 64 * 3);
    for (std::size_t i = 0; i < pixels.size(); i++) pixels[i] = static_cast<float>(i % (64 * 3)) / (64 * 3);

    luna::Result latent = vae.encode(luna::view(pixels.data(), {1, 48, 64, 3}));
    std::printf("latent of %zu values, %llu bytes copied\n", latent.tensor.size(),
                static_cast<unsigned long long>(latent.report.copied_bytes));
    luna::Result decoded = vae.decode(latent.tensor.view());

    double error = 0;
    for (std::size_t i = 0; i < pixels.size(); i++) {
        double apart = decoded.tensor.begin()[i] - pixels[i];
        error += apart * apart;
    }
    std::printf("mean squared error: %.5f\n", error / static_cast<double>(pixels.size()));
} catch (const luna::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
