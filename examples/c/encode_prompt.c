/* Tokenizes and encodes prompts with the text encoder that the library carries. Its weights are random. */
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
    const char *paths[] = {"demo"};
    luna_text text;
    must(luna_text_load(session, paths, 1, NULL, &text));

    luna_list tokens;
    must(luna_text_tokenize(text, "a (red:1.3) fox", NULL, &tokens, NULL));
    for (size_t i = 0; i < 5; i++) {
        luna_token token = {0};
        token.size = sizeof token;
        must(luna_list_token(tokens, i, &token));
        printf("%s: token %d, weight %.1f\n", token.encoder, (int)token.id, token.weight);
    }

    const char *prompts[] = {"a (red:1.3) fox", "blurry"};
    luna_conditioning conditioning[2];
    must(luna_text_encode(text, prompts, 2, NULL, conditioning, NULL));
    for (int i = 0; i < 2; i++) {
        luna_view view, pooled;
        must(luna_tensor_view(conditioning[i].tokens, &view));
        must(luna_tensor_view(conditioning[i].pooled, &pooled));
        printf("\"%s\": %d tokens of %d channels, %d pooled\n", prompts[i], (int)view.shape[1], (int)view.shape[2],
               (int)pooled.shape[1]);
        must(luna_conditioning_free(conditioning[i]));
    }
    must(luna_list_free(tokens));
    must(luna_text_free(text));
    must(luna_close(session));
    return 0;
}
