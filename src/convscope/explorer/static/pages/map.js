export async function render() { return "Map"; }
