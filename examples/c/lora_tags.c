/* Encodes a prompt whose tags name LoRAs, such as <lora:ink:0.8>, and tells what the tags said. The folder that the LoRAs
 * lie in is given. */
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
    if (argc != 2) return fprintf(stderr, "usage: lora_tags FOLDER\n"), 1;
    const char *paths[] = {"demo"}, *folders[] = {argv[1]}, *prompts[] = {"a red fox<lora:ink:0.8:0.6>"};
    luna_open_options folder = {0};
    luna_session session;
    luna_text text;
    folder.size = sizeof folder, folder.lora_folders = folders, folder.lora_folder_count = 1;
    must(luna_open(&folder, &session));
    must(luna_text_load(session, paths, 1, NULL, &text));

    /* One stack for the text encoders and, with the tag's first strength, for the denoiser. */
    luna_loras_options named = {0};
    luna_loras loras;
    named.size = sizeof named, named.prompts = prompts, named.prompt_count = 1;
    must(luna_loras_new(session, NULL, 0, &named, &loras));
    luna_list tags;
    luna_lora_tag tag = {0};
    tag.size = sizeof tag;
    must(luna_loras_list_tags(loras, &tags));
    must(luna_list_lora_tag(tags, 0, &tag));
    printf("%s: %.1f and %.1f\n", tag.name, tag.model, tag.clip);

    luna_text_options options = {0};
    luna_report report = {0};
    luna_conditioning conditioning;
    options.size = sizeof options, options.loras = loras, options.lora_tags = 1, report.size = sizeof report;
    must(luna_text_encode(text, prompts, 1, &options, &conditioning, &report));
    printf("%d adapters applied, %d not\n", (int)report.adapters_applied, (int)report.adapters_missed);

    must(luna_list_free(tags));
    must(luna_conditioning_free(conditioning));
    must(luna_loras_free(loras));
    must(luna_text_free(text));
    must(luna_close(session));
    return 0;
}
