use super::*;
use crate::ErrorKind;
use std::io::{Cursor, Read};

/// Made by `make.py` from PROTOCOL.md alone.
fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/fixtures/protocol/{name}.frame", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read(frame: &[u8]) -> Message {
    let limits = FrameLimits::default();
    let mut rest = Cursor::new(frame);
    let body = read_body(&mut rest, &limits).unwrap().unwrap();
    assert!(read_body(&mut rest, &limits).unwrap().is_none(), "one frame and no more");
    Message::parse(body, &limits).unwrap()
}

fn written(role: Role, json: &str, tensors: &[TensorRef]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, role, json, tensors, u64::MAX).unwrap();
    frame
}

#[test]
fn golden_requests_are_read_and_written_to_the_byte() {
    let message = read(&golden("hello"));
    let (head, request) = RequestHead::parse(message.json()).unwrap();
    let hello = Hello { protocol: 1, client: Some("golden".to_owned()), token: None };
    assert_eq!((head.id, request.unwrap()), (0, Request::Hello(hello.clone())));
    assert_eq!(written(Role::Request, &head.json("hello", &hello).unwrap(), &[]), golden("hello"));

    let head = RequestHead { id: 1, ..RequestHead::default() };
    assert_eq!(written(Role::Request, &head.json("ping", &Ping {}).unwrap(), &[]), golden("ping"));

    let message = read(&golden("vae_decode"));
    let (head, request) = RequestHead::parse(message.json()).unwrap();
    assert_eq!(head, RequestHead { id: 7, deadline_ms: Some(5000), progress: true });
    let Ok(Request::VaeDecode(decode)) = request else { panic!("{request:?}") };
    assert_eq!((decode.vae.as_deref(), decode.tile_size, decode.overlap), (Some("sdxl"), Some(32), Some(8)));
    let latents = message.tensor("latents").unwrap();
    assert_eq!(latents.sides::<4>("four").unwrap(), [2, 4, 3, 1]);
    let values: Vec<f32> = (0..24).map(|i| 0.5 - i as f32).collect();
    assert_eq!(latents.values().unwrap(), values);
    let tensors = [TensorRef::f32("latents", &[2, 4, 3, 1], &values)];
    let json = head.json("vae_decode", &decode).unwrap();
    assert_eq!(written(Role::Request, &json, &tensors), golden("vae_decode"));
}

/// The tensors in the order of their bytes.
fn in_order(message: &Message) -> Vec<TensorRef<'_>> {
    let mut tensors: Vec<_> = message.tensors().map(|tensor| tensor.view()).collect();
    tensors.sort_by_key(|tensor| tensor.bytes.as_ptr());
    tensors
}

/// Reads a request as the daemon does, and writes what it understood: nothing may be lost.
fn request_stands<C: Command>(name: &str) -> C {
    let frame = golden(name);
    let message = read(&frame);
    let (head, request) = RequestHead::parse(message.json()).unwrap();
    assert_eq!(request.unwrap().name(), C::NAME);
    let mut fields: serde_json::Map<_, _> = serde_json::from_str(message.json()).unwrap();
    ["id", "cmd", "progress", "deadline_ms"].into_iter().for_each(|key| _ = fields.remove(key));
    let command: C = serde_json::from_value(fields.into()).unwrap();
    let tensors = in_order(&message);
    assert_eq!(written(Role::Request, &head.json(C::NAME, &command).unwrap(), &tensors), frame, "{name}");
    command
}

/// Reads a reply and writes what was understood.
fn reply_stands<C: Command>(name: &str) -> C::Reply {
    let frame = golden(name);
    let message = read(&frame);
    let head: ReplyHead = serde_json::from_str(message.json()).unwrap();
    let reply: C::Reply = serde_json::from_str(message.json()).unwrap();
    let fields = serde_json::to_value(&reply).unwrap();
    let tensors = in_order(&message);
    assert_eq!(written(Role::Reply, &head.json(fields.as_object().unwrap()), &tensors), frame, "{name}");
    reply
}

#[test]
fn golden_requests_of_text_encoders_keep_every_field() {
    assert_eq!(request_stands::<ClipTokenize>("clip_tokenize").encoder.as_deref(), Some("clip_g"));
    let encode: ClipEncode = request_stands("clip_encode");
    assert_eq!((encode.with.clip_skip, encode.with.strict), (Some(2), true));
    assert_eq!(encode.with.loras, [LoraUse { lora: "ink".to_owned(), model: 0.75, clip: 0.5 }]);
    assert_eq!(request_stands::<ClipEncodeSdxl>("clip_encode_sdxl").target_height, 768);
    assert_eq!(
        request_stands::<ClipEncodeFromTokens>("clip_encode_from_tokens").masks.unwrap()[0],
        [true, true, false]
    );
    assert_eq!(request_stands::<ZimageEncode>("zimage_encode").with.recipe.as_deref(), Some("z_image"));
    let short: LoraUse = serde_json::from_str(r#"{"lora": "ink"}"#).unwrap();
    assert_eq!((short.model, short.clip), (1.0, 1.0));
}

#[test]
fn golden_requests_of_denoisers_and_loras_keep_every_field() {
    let forward: ModelForward = request_stands("model_forward");
    assert_eq!((forward.lora_mode.as_deref(), forward.forwards), (Some("auto"), Some(40)));
    let cache = forward.cache.unwrap();
    assert_eq!((cache.threshold, cache.end_percent, cache.max_consecutive_hits), (Some(0.125), None, Some(3)));
    assert_eq!(request_stands::<SetAttentionMode>("set_attention_mode").mode, "split");
    assert_eq!(request_stands::<LoraCachePut>("lora_cache_put").metadata["ss_network_dim"], "4");
    assert!(request_stands::<LoraCacheGet>("lora_cache_get").tensors);
    assert_eq!(request_stands::<LoraCacheCheck>("lora_cache_check").lora.len(), 64);
    request_stands::<LoraCacheStats>("lora_cache_stats");
    let forwarded = reply_stands::<ModelForward>("forwarded");
    let coverage = forwarded.loras.unwrap().coverage;
    assert_eq!((coverage.applied(), coverage.is_complete(), coverage.files[0].elsewhere), (1, false, 12));
    let head: ReplyHead = serde_json::from_str(read(&golden("need_lora")).json()).unwrap();
    let fault = head.error.unwrap();
    assert_eq!((fault.reason, fault.missing), (Some(Reason::NeedLora), vec!["ink".to_owned()]));
}

#[test]
fn golden_requests_of_vision_and_save_jobs_keep_every_field() {
    assert_eq!(request_stands::<EncodeVision>("encode_vision").regions, [[0, 0, 1, 2]]);
    let generate: VlmGenerate = request_stands("vlm_generate");
    assert_eq!((generate.sampling.unwrap().top_k, generate.stream), (40, true));
    assert_eq!((generate.loras[0].clip, generate.strict, generate.lora_mode.as_deref()), (0.5, true, Some("auto")));
    let register: RegisterModelByPath = request_stands("register_model_by_path");
    assert_eq!(register.projector.as_deref(), Some("eyes.gguf"));
    request_stands::<NegotiateIpc>("negotiate_ipc");
    let save: SaveImagesAsync = request_stands("save_images_async");
    assert_eq!((save.values.seed, save.images[0].quality, save.durable), (Some(5), Some(80), true));
    assert_eq!(request_stands::<SubmitAsync>("submit_async").task_data.name.as_deref(), Some("moon"));
    request_stands::<JobStatus>("job_status");
    request_stands::<JobCancel>("job_cancel");
    let job = reply_stands::<JobStatus>("job");
    assert_eq!(job.pictures[0].file.as_ref().unwrap().bytes, 70);
    assert!(!job.pictures[1].verdict.unwrap().passed);
    let event: Event = serde_json::from_str(read(&golden("text")).json()).unwrap();
    assert_eq!(event, Event { id: 9, kind: EventKind::Text { token: 42, text: " moon".to_owned() } });
    assert_eq!(written(Role::Event, &event.json(), &[]), golden("text"));
}

#[test]
fn a_frame_whose_tensors_lie_in_shared_memory_is_read_and_written_to_the_byte() {
    let frame = golden("shared");
    let data = [1.0f32, -2.0, 0.5];
    let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    let place = SharedPlace { segment: 2, bytes: 12, new: true, gone: vec![0, 1] };
    let limits = FrameLimits::default();
    let body = read_body(&mut Cursor::new(&frame), &limits).unwrap().unwrap();
    let message = Message::parse_with(body.clone(), &limits, |found| {
        assert_eq!(*found, place);
        Ok(Box::new(bytes))
    });
    let message = message.unwrap();
    assert_eq!(
        (message.tensor("x").unwrap().values().unwrap(), message.json()),
        (data.to_vec(), r#"{"cmd":"echo","id":3}"#)
    );
    let tensors = [TensorRef::f32("x", &[3], &data)];
    assert_eq!(shared_frame(Role::Request, message.json(), &tensors, &place), frame);
    let short = Message::parse_with(body, &limits, |_| Ok(Box::new(vec![0; 8])));
    assert!(short.unwrap_err().to_string().contains("not as long"));
}

#[test]
fn an_upload_is_the_same_file_whoever_sends_it() {
    let (a, b) = ([1.0f32, 2.0], [3.0f32]);
    let (first, second) = (TensorRef::f32("a", &[2], &a), TensorRef::f32("b", &[1], &b));
    let file = |json: &str, tensors: &[TensorRef]| {
        let metadata = [("k".to_owned(), "v".to_owned())].into();
        read(&written(Role::Request, json, tensors)).to_file(&metadata)
    };
    let one = file(r#"{"id":1}"#, &[first, second]);
    assert_eq!(one, file(r#"{"id":2,"name":"x"}"#, &[second, first]));
    let read = safetensors::SafeTensors::deserialize(&one).unwrap();
    assert_eq!(read.tensor("b").unwrap().data(), 3f32.to_le_bytes());
}

#[test]
fn golden_replies_and_events_are_read_and_written_to_the_byte() {
    let message = read(&golden("pixels"));
    let head: ReplyHead = serde_json::from_str(message.json()).unwrap();
    assert!(head.ok && head.id == 7 && head.queue_ms == 0.5 && head.compute_ms == 12.25);
    assert_eq!(head.fallbacks[0].name, "tiled");
    assert_eq!(message.tensor("pixels").unwrap().values().unwrap(), [1.0, -0.5]);
    assert_eq!(message.tensor("mask").unwrap().view().bytes, [1, 0, 1]);
    assert_eq!(message.tensor("mask").unwrap().values().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(message.tensor("latents").map(drop).unwrap_err().kind(), ErrorKind::InvalidInput);
    let tensors: Vec<_> = message.tensors().map(|tensor| tensor.view()).collect();
    assert_eq!(written(Role::Reply, &head.json(&Default::default()), &tensors), golden("pixels"));

    let message = read(&golden("busy"));
    let head: ReplyHead = serde_json::from_str(message.json()).unwrap();
    let fault = head.error.clone().unwrap();
    assert_eq!((fault.kind(), fault.retry_after_ms, head.ok), (ErrorKind::Busy, Some(40), false));
    assert_eq!(written(Role::Reply, &head.json(&Default::default()), &[]), golden("busy"));

    let message = read(&golden("progress"));
    let event: Event = serde_json::from_str(message.json()).unwrap();
    assert_eq!(event, Event { id: 7, kind: EventKind::Progress { done: 3, total: 20 } });
    assert_eq!(written(Role::Event, &event.json(), &[]), golden("progress"));
}

#[test]
fn a_fault_keeps_its_kind_and_words_there_and_back() {
    for kind in ErrorKind::ALL {
        let error = crate::Error::new(kind, "m").expected("e").found("f").remedy("r");
        let fault = Fault::from(error);
        assert_eq!((fault.code, fault.kind()), (kind.code(), kind));
        let text = serde_json::to_string(&fault).unwrap();
        let back: crate::Error = serde_json::from_str::<Fault>(&text).unwrap().into();
        assert_eq!((back.kind(), back.to_string()), (kind, "m: expected e, found f; r".to_owned()));
        assert_eq!(Fault::within(&back), Some(&fault));
    }
    let fault = Fault::unknown_model("sdxl");
    assert_eq!((fault.reason, fault.kind()), (Some(Reason::UnknownModel), ErrorKind::NotFound));
    assert!(fault.remedy.unwrap().contains("register_model_by_path"));
}

#[test]
fn unknown_commands_and_fields_are_refused_by_name() {
    let fault = |json: &str| RequestHead::parse(json).unwrap().1.unwrap_err();
    assert_eq!(fault(r#"{"id":1,"cmd":"vae_decode_ipc"}"#).reason, Some(Reason::UnknownCommand));
    assert!(fault(r#"{"id":1,"cmd":"vae_decode_ipc"}"#).expected.unwrap().contains("vae_decode"));
    assert!(fault(r#"{"id":1,"cmd":"vae_decode","tile":4}"#).message.contains("`tile`"));
    assert!(fault(r#"{"id":1,"cmd":"vae_decode","tiled":"yes"}"#).message.contains("bool"));
    assert!(fault(r#"{"id":1}"#).message.contains("cmd"));
    for nobody in ["", "[]", r#"{"cmd":"ping"}"#, r#"{"id":-1,"cmd":"ping"}"#, r#"{"id":"a","cmd":"ping"}"#] {
        assert_eq!(RequestHead::parse(nobody).unwrap_err().kind(), ErrorKind::InvalidInput, "{nobody}");
    }
}

/// A body of this header and so many bytes of data.
fn body(header: &str, data: usize) -> Vec<u8> {
    let mut body = (header.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(header.as_bytes());
    body.resize(body.len() + data, 0);
    body
}

#[test]
fn hostile_bodies_are_refused() {
    let words = r#""__metadata__":{"request":"{}"}"#;
    let tensor = |info: &str| format!("{{{words},\"a\":{info}}}");
    let cases = [
        (Vec::new(), "no header"),
        (vec![0xff; 9], "longer"),
        (body("{}", 0), "what it is"),
        (body(r#"{"__metadata__":{"request":"{}","reply":"{}"}}"#, 0), "what it is"),
        (body(r#"{"__metadata__":{"request":"{}","request":"{}"}}"#, 0), "twice"),
        (body(&format!("{{{words},{words}}}"), 0), "twice"),
        (body(&format!("{{{words}}}"), 3), "no tensor"),
        (body(&tensor(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), 4), "does not fit"),
        (body(&tensor(r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#), 8), "does not fit"),
        (body(&tensor(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 4), "does not fit"),
        (body(&tensor(r#"{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,8]}"#), 8), "does not fit"),
        (body(&tensor(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#), 8), "gaps"),
        (body(&tensor(r#"{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}"#), 4), "cannot be read"),
        (body(&tensor(r#"{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}"#), 4), "dimensions"),
        (body(&"[".repeat(1000), 0), "cannot be read"),
    ];
    for (bytes, says) in cases {
        let error = Message::parse(bytes.clone(), &FrameLimits::default()).map(drop).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::LimitExceeded), "{error}");
        assert!(error.to_string().contains(says), "{error}, not {says}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_anything_is_read_or_allocated() {
    struct Endless;
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(buffer.len() <= 4, "a body was read");
            buffer.fill(0xff);
            Ok(buffer.len())
        }
    }
    let error = read_body(&mut Endless, &FrameLimits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let cut = &golden("vae_decode")[..60];
    assert_eq!(read_body(&mut Cursor::new(cut), &FrameLimits::default()).unwrap_err().kind(), ErrorKind::Io);
    let short = FrameLimits::of_bytes(16);
    assert_eq!(read_body(&mut Cursor::new(golden("ping")), &short).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(write_frame(&mut Vec::new(), Role::Request, "{}", &[], 8).is_err());
}

#[test]
fn a_body_that_comes_in_pieces_is_put_together() {
    /// Gives a few bytes at a time, and is interrupted now and then.
    struct Dribble<'a>(&'a [u8], usize);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(buffer.len() <= 384 << 10, "so much was made ready before it came");
            self.1 += 1;
            if self.1.is_multiple_of(7) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let piece = buffer.len().min(1 + self.1 * 7919 % 90_000);
            self.0.read(&mut buffer[..piece])
        }
    }
    for length in [1, 127 << 10, (256 << 10) + 1, (17 << 20) + 3] {
        let body: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        let mut frame = (length as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        let got = read_body(&mut Dribble(&frame, 0), &FrameLimits::default()).unwrap();
        assert!(got.is_some_and(|got| got == body), "{length} bytes");
        let cut = read_body(&mut Dribble(&frame[..frame.len() - 1], 0), &FrameLimits::default());
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::Io, "{length} bytes");
    }
}

#[test]
fn every_command_is_told_in_the_protocol() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../PROTOCOL.md");
    let text = std::fs::read_to_string(path).unwrap();
    for name in Request::NAMES {
        assert!(text.contains(&format!("`{name}`")), "PROTOCOL.md does not tell `{name}`");
    }
}
