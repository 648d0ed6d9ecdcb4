use super::*;

#[test]
fn choices_are_read_and_written() {
    for (text, choice) in [
        ("auto", DeviceChoice::Auto),
        ("cpu", DeviceChoice::Cpu),
        ("CUDA", DeviceChoice::Cuda(0)),
        ("cuda:3", DeviceChoice::Cuda(3)),
    ] {
        assert_eq!(text.parse(), Ok(choice));
        assert_eq!(choice.to_string().parse(), Ok(choice));
    }
    for text in ["cuda:", "cuda:-1", "cuda:x", "tpu", "cuda:99999999999999999999"] {
        let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("cuda:N"), "{error}");
    }
}

#[test]
fn the_cpu_opens_and_tells_its_memory() {
    assert!(open(DeviceChoice::Cpu).unwrap().is_cpu());
    let memory = memory(DeviceChoice::Cpu).unwrap();
    assert!(memory.free > 0 && memory.free <= memory.total, "{memory:?}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_so() {
    assert_eq!(DeviceChoice::Auto.resolve(), DeviceChoice::Cpu);
    let error = open(DeviceChoice::Cuda(1)).unwrap_err().to_string();
    assert!(error.contains("cuda:1") && error.contains("built without CUDA"), "{error}");
    assert!(memory(DeviceChoice::Cuda(0)).is_err());
}

#[test]
fn a_card_without_bf16_is_told_apart() {
    assert!(check_bf16(DeviceChoice::Cpu).is_ok());
    for (capability, is_refused) in [((7, 0), true), ((7, 5), true), ((8, 0), false), ((9, 0), false), ((12, 0), false)]
    {
        assert_eq!(bf16_fault(capability).is_some(), is_refused, "{capability:?}");
    }
    assert!(bf16_fault((7, 5)).unwrap().contains("capability 7.5"));
}

#[test]
fn meminfo_is_in_kibibytes() {
    let report = "MemTotal:       24641704 kB\nMemFree:         1 kB\nMemAvailable:   24000000 kB\n";
    assert_eq!(parse_meminfo(report), Some(DeviceMemory { free: 24_000_000 * 1024, total: 24_641_704 * 1024 }));
    assert_eq!(parse_meminfo("MemTotal: 5 kB\n"), None);
}
