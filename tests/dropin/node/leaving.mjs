// A client that reads one event and leaves, while the stream is still open.
import { check, client } from './checks.mjs'

const sdk = client({ retries: 0 })

await check('the first event comes before the end', async () => {
  const run = sdk.conversation.complete(null, { messages: [{ type: 'user', text: 'Hello' }] })
  for await (const event of run.stream()) {
    return event
  }
})
