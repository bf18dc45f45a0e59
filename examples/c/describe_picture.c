/* Has a vision-language model describe a picture, and prints the words as they come. The model is given as a folder. */
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

static void print_piece(uint32_t id, const char *text, void *user_data) {
    (void)id;
    fputs(text, (FILE *)user_data);
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: describe_picture MODEL\n"), 1;
    luna_session session;
    luna_vlm vlm;
    must(luna_open(NULL, &session));
    must(luna_vlm_load(session, argv[1], NULL, &vlm));

    static unsigned char pixels[48][64][3];
    for (int y = 0; y < 48; y++)
        for (int x = 0; x < 64; x++) pixels[y][x][0] = (unsigned char)(4 * x);
    luna_view view = {0};
    view.data = pixels, view.dtype = LUNA_DTYPE_U8, view.rank = 4;
    view.shape[0] = 1, view.shape[1] = 48, view.shape[2] = 64, view.shape[3] = 3;
    const luna_view *images[] = {&view};

    luna_question question = {0};
    question.size = sizeof question, question.prompt = "Describe this picture.";
    question.images = images, question.image_count = 1;
    luna_generate_options options = {0};
    options.size = sizeof options, options.max_tokens = 8, options.piece = print_piece, options.user_data = stdout;
    luna_list answer;
    luna_generated generated = {0};
    generated.size = sizeof generated;
    must(luna_vlm_generate(vlm, &question, &options, &answer, NULL));
    must(luna_list_generated(answer, 0, &generated));
    printf("\n%d tokens after %d\n", (int)generated.id_count, (int)generated.prompt_tokens);
    must(luna_list_free(answer));
    must(luna_vlm_free(vlm));
    must(luna_close(session));
    return 0;
}
