/* Hears the progress of a call, and cancels it from its own callback once it is half done. */
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

static void half_way(uint64_t done, uint64_t total, void *user_data) {
    if (2 * done >= total) luna_call_cancel(*(const luna_call *)user_data);
}

int main(void) {
    luna_session session;
    luna_vae vae;
    must(luna_open(NULL, &session));
    must(luna_vae_load(session, "moonlet", &vae));

    luna_call call;
    luna_call_options options = {0};
    options.size = sizeof options, options.progress = half_way, options.user_data = &call;
    must(luna_call_new(&options, &call));

    static float pixels[64 * 64 * 3];
    luna_view picture = {0};
    picture.data = pixels, picture.rank = 4;
    picture.shape[0] = 1, picture.shape[1] = picture.shape[2] = 64, picture.shape[3] = 3;
    luna_encode_options encode = {0};
    encode.size = sizeof encode, encode.call = call;
    luna_tensor latent;
    luna_status status = luna_vae_encode(vae, &picture, &encode, &latent, NULL);

    luna_error error = {0};
    error.size = sizeof error;
    must(luna_last_error(&error));
    printf("%s: %s\n", luna_status_name(status), error.text);
    must(luna_call_free(call));
    must(luna_vae_free(vae));
    must(luna_close(session));
    return status == LUNA_STATUS_CANCELLED ? 0 : 1;
}
