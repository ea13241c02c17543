export async function render() { return "Study"; }
