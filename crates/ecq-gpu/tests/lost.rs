//! A device that is gone is an error of everything that would use it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod support;

use case::{Case, with_tensor};
use ecq_gpu::{Error, Matrix, Packed, Strategy, Weights};

#[test]
fn everything_says_that_the_device_is_lost() {
    let Some(engine) = support::engine() else { return };
    let case = Case { rows: 40, cols: 75, ..Case::PLAIN };
    with_tensor(&case, |tensor| {
        let matrix = Matrix::new(&engine, "w", tensor).unwrap();
        let packed = support::decode(&engine, &matrix);
        let strategies = [Strategy::Fused, Strategy::Prefetch, Strategy::Lru { bytes: 1 << 20 }];
        let mut all = strategies.map(|strategy| {
            let mut weights = Weights::new(&engine, strategy);
            let id = weights.add("w", tensor).unwrap();
            (weights, id)
        });
        let x = support::buffer(&engine, &vec![1.0; case.cols]);
        let y = support::buffer(&engine, &vec![0.0; case.rows]);
        let (x, y) = (x.slice(..), y.slice(..));
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        matrix.record(&engine, &mut encoder, x, y).unwrap();
        engine.device().destroy();
        let is_lost = |what: &str, done: ecq_gpu::Result<()>| {
            assert!(matches!(done, Err(Error::Lost(_))), "{what}: {done:?}");
        };
        for _ in 0..2 {
            is_lost("a product", matrix.record(&engine, &mut encoder, x, y));
            is_lost("a packed one", packed.record(&engine, &mut encoder, &matrix, x, y));
            is_lost("decoding", packed.decode(&engine, &mut encoder, &matrix));
            is_lost("uploading", Matrix::new(&engine, "w", tensor).map(drop));
            is_lost("room", Packed::new(&engine, &matrix).map(drop));
            for (weights, id) in &mut all {
                is_lost("a product of weights", weights.record(&mut encoder, *id, x, y));
                is_lost("adding", weights.add("w", tensor).map(drop));
            }
        }
    });
}
