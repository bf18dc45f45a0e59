/* Encodes a picture with the VAE that the library carries, and decodes the latent again. */
#include <luna.h>
#include <stdio.h>
#include <stdlib.h>

static void must(luna_status status) {
    if (status == LUNA_STATUS_OK) return;
    luna_error error = {0};
    error.size = sizeof error;
    luna_last_error(&error);
    fprintf(stderr, "%s: %s\n", luna_status_name(status), error.text);
    exit(1);
}

int main(void) {
    luna_session session;
    must(luna_open(NULL, &session));
    luna_vae vae;
    must(luna_vae_load(session, "moonlet", &vae));

    /* A gradient, [batch, height, width, channels]. */
    static float pixels[48][64][3];
    for (int y = 0; y < 48; y++)
        for (int x = 0; x < 64; x++) pixels[y][x][0] = (float)x / 63, pixels[y][x][1] = (float)y / 47;
    luna_view picture = {0};
    picture.data = pixels;
    picture.rank = 4;
    picture.shape[0] = 1, picture.shape[1] = 48, picture.shape[2] = 64, picture.shape[3] = 3;

    luna_tensor latent, decoded;
    luna_report report = {0};
    report.size = sizeof report;
    must(luna_vae_encode(vae, &picture, NULL, &latent, &report));
    printf("encoded in %.1f ms, %llu bytes copied\n", (double)report.nanoseconds / 1e6,
           (unsigned long long)report.copied_bytes);

    luna_view view;
    must(luna_tensor_view(latent, &view));
    printf("latent: %d x %d x %d x %d\n", (int)view.shape[0], (int)view.shape[1], (int)view.shape[2], (int)view.shape[3]);
    must(luna_vae_decode(vae, &view, NULL, &decoded, NULL));
    must(luna_tensor_view(decoded, &view));
    const float *values = view.data;
    double error = 0;
    for (int i = 0; i < 48 * 64 * 3; i++) {
        double apart = (double)values[i] - (double)((float *)pixels)[i];
        error += apart * apart;
    }
    printf("mean squared error: %.5f\n", error / (48 * 64 * 3));

    must(luna_tensor_free(latent));
    must(luna_tensor_free(decoded));
    must(luna_vae_free(vae));
    must(luna_close(session));
    return 0;
}
