/* Saves a picture in the background, below the folder that is given, and tells where it went. */
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
    if (argc != 2) return fprintf(stderr, "usage: save_pictures FOLDER\n"), 1;
    luna_open_options options = {0};
    options.size = sizeof options;
    options.output_folder = argv[1];
    luna_session session;
    must(luna_open(&options, &session));

    static unsigned char pixels[24][32][3];
    for (int y = 0; y < 24; y++)
        for (int x = 0; x < 32; x++) pixels[y][x][2] = (unsigned char)(8 * x);
    luna_view view = {0};
    view.data = pixels, view.dtype = LUNA_DTYPE_U8, view.rank = 4;
    view.shape[0] = 1, view.shape[1] = 24, view.shape[2] = 32, view.shape[3] = 3;

    luna_save_image image = {0};
    image.pixels = &view;
    const char *keys[] = {"parameters"}, *texts[] = {"a blue gradient"};
    luna_save_job job = {0};
    job.size = sizeof job, job.images = &image, job.image_count = 1, job.name = "gradient_%counter:3%";
    job.metadata_keys = keys, job.metadata_texts = texts, job.metadata_count = 1;
    uint64_t id;
    must(luna_save_submit(session, &job, &id));
    must(luna_save_wait(session, id, -1, NULL));

    luna_list pictures;
    must(luna_save_list_pictures(session, id, &pictures));
    luna_save_picture picture = {0};
    picture.size = sizeof picture;
    must(luna_list_picture(pictures, 0, &picture));
    printf("%s: %d bytes\n", picture.path ? picture.path : picture.error, (int)picture.bytes);
    must(luna_list_free(pictures));
    must(luna_close(session));
    return 0;
}
