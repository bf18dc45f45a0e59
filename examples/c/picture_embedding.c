/* Makes an embedding of a picture, to compare with those of others. The vision encoder is given as a file or folder. */
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

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: picture_embedding MODEL\n"), 1;
    luna_session session;
    luna_vision vision;
    must(luna_open(NULL, &session));
    must(luna_vision_load(session, argv[1], &vision));

    static float pixels[30][40][3];
    for (int y = 0; y < 30; y++)
        for (int x = 0; x < 40; x++) pixels[y][x][1] = (float)x / 40;
    luna_view view = {0};
    view.data = pixels, view.rank = 4;
    view.shape[0] = 1, view.shape[1] = 30, view.shape[2] = 40, view.shape[3] = 3;
    const luna_view *images[] = {&view};

    luna_features features;
    must(luna_vision_encode(vision, images, 1, NULL, &features, NULL));
    must(luna_tensor_view(features.image_embeds, &view));
    printf("embedding of %d numbers, the first %.4f\n", (int)view.shape[1], (double)*(const float *)view.data);
    must(luna_features_free(features));
    must(luna_vision_free(vision));
    must(luna_close(session));
    return 0;
}
