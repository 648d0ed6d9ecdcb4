use super::*;

#[test]
fn packed_and_single_values_are_both_read() {
    // TensorProto: dims 2 and 3 unpacked, data_type INT8, name "w", int32_data packed -1 .. 4 as ten-byte and short varints.
    let mut small = vec![0xff; 9];
    small.push(1);
    small.extend([0, 1, 2, 3, 4]);
    let mut tensor = vec![0x08, 2, 0x08, 3, 0x10, 3, 0x42, 1, b'w', 0x2a, small.len() as u8];
    tensor.extend(&small);
    let read = Tensor::read(&tensor).unwrap();
    assert_eq!((read.name, read.shape.as_slice()), ("w", [2, 3].as_slice()));
    assert_eq!(read.values().unwrap(), [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0]);

    // Packed dims [2], FLOAT, float_data packed.
    let mut tensor = vec![0x0a, 1, 2, 0x10, 1, 0x22, 8];
    tensor.extend(1.5f32.to_le_bytes());
    tensor.extend((-2.0f32).to_le_bytes());
    let read = Tensor::read(&tensor).unwrap();
    assert!(read.is_float());
    assert_eq!(read.values().unwrap(), [1.5, -2.0]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    assert!(Graph::read(b"").is_err());
    assert!(Graph::read(b"not a protobuf message").is_err());
    // A length that runs past the end; a varint that never ends; a shape that overflows.
    assert!(Graph::read(&[0x3a, 0x7f, 1]).is_err());
    assert!(Graph::read(&[0xff; 12]).is_err());
    let mut tensor = vec![0x10, 1];
    (0..3).for_each(|_| tensor.extend([0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]));
    assert!(Tensor::read(&tensor).is_err());
}
