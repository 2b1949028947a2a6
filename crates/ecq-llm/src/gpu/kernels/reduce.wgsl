// Reductions over the invocations of a workgroup, in an order that does not depend on the machine. THREADS is a power of two.
var<workgroup> shared_numbers: array<f32, THREADS>;

fn sum_all(own: f32, li: u32) -> f32 {
    workgroupBarrier(); // whoever read the last sum is done
    shared_numbers[li] = own;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half >>= 1u) {
        if (li < half) {
            shared_numbers[li] += shared_numbers[li + half];
        }
        workgroupBarrier();
    }
    return shared_numbers[0];
}

fn most_of_all(own: f32, li: u32) -> f32 {
    workgroupBarrier();
    shared_numbers[li] = own;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half >>= 1u) {
        if (li < half) {
            shared_numbers[li] = max(shared_numbers[li], shared_numbers[li + half]);
        }
        workgroupBarrier();
    }
    return shared_numbers[0];
}
