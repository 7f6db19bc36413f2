// Publish and subscribe: an open stream, words sent to it over another connection, and leaving.
import assert from 'node:assert/strict'

import { check, client, failure } from './checks.mjs'

const sdk = client({ retries: 0 })
const CHANNEL = 'a-channel-of-ours'

await check('what is published is heard, in order', async () => {
  const heard = []
  for await (const event of sdk.channel.subscribe(CHANNEL).stream()) {
    if (event.type === 'nop') {
      // The stream stands, so from here on nothing may be missed.
      for (const word of ['one', 'två', '世界']) {
        await sdk.channel.publish(CHANNEL, { message: { word } })
      }
    } else if (event.type === 'message') {
      heard.push(event.data.word)
    }
    if (heard.length === 3) {
      break
    }
  }
  assert.deepEqual(heard, ['one', 'två', '世界'])
})

await check('history is given to those who come late', async () => {
  for await (const event of sdk.channel.subscribe(CHANNEL, { historyLength: 2 }).stream()) {
    if (event.type === 'message') {
      assert.equal(event.data.word, 'två')
      break
    }
  }
})

await check('a dispatched run is heard on its channel', async () => {
  const heard = []
  for await (const event of sdk.channel.subscribe('a-run').stream()) {
    if (event.type === 'nop') {
      const messages = [{ type: 'user', text: 'Hello' }]
      const { channelId } = await sdk.conversation.dispatch(null, { channelId: 'a-run', messages })
      assert.equal(channelId, 'a-run')
    } else {
      heard.push(event.data.type)
    }
    if (heard.at(-1) === 'result') {
      break
    }
  }
  assert.ok(heard.includes('token'))
})

await check('a message that is none is refused', async () => {
  assert.equal((await failure(() => sdk.channel.publish(CHANNEL, { message: 'text' }))).code, 'BAD_REQUEST')
})
