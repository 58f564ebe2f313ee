// Finds nodes by the ids in events and saved outputs. There are three kinds of ids, all strings:
// "5", a node of the top graph; "12:5", node 5 within subgraph node 12 (execution id);
// "<uuid>:5", node 5 of the subgraph with that id (locator id).

/** The node, or null if the graph does not contain it (any more). */
export function findNode(root, id) {
  const parts = String(id ?? "").split(":")
  const last = parts.pop()
  let graph = root
  for (const part of parts) {
    graph = root?.subgraphs?.get?.(part) ?? graph?.getNodeById?.(part)?.subgraph
    if (!graph) return null
  }
  return (last && graph?.getNodeById?.(last)) || null
}
