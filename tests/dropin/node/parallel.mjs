// Many calls at once, of every kind, over as many connections as the runtime likes.
import assert from 'node:assert/strict'

import { all, check, client } from './checks.mjs'

const sdk = client()
const many = (count, make) => Promise.all(Array.from({ length: count }, (_, index) => make(index)))

let ids
await check('creates', async () => {
  ids = (await many(30, (index) => sdk.bot.create({ name: `Bot ${index}` }))).map((made) => made.id)
  assert.equal(new Set(ids).size, 30)
})

await check('fetches do not get mixed up', async () => {
  const fetched = await Promise.all([...ids, ...ids].map((id) => sdk.bot.fetch(id)))
  assert.deepEqual(
    fetched.map((bot) => bot.id),
    [...ids, ...ids]
  )
  assert.deepEqual(
    fetched.map((bot) => bot.name),
    [...ids, ...ids].map((_, index) => `Bot ${index % 30}`)
  )
})

await check('the same list', async () => {
  const lists = await many(25, () => sdk.bot.list())
  for (const list of lists) {
    assert.deepEqual(list, lists[0])
  }
  assert.equal(lists[0].items.length, 30)
})

await check('streams beside reads and writes', async () => {
  const streams = many(8, (index) => {
    const messages = [{ type: 'user', text: `Number ${index}` }]
    return all(sdk.conversation.complete(null, { messages }).stream())
  })
  const writes = many(8, (index) => sdk.bot.update(ids[index], { name: `Changed ${index}` }))
  const reads = many(8, (index) => sdk.bot.fetch(ids[index + 8]))
  const [runs] = await Promise.all([streams, writes, reads])
  runs.forEach((events, index) => assert.ok(events.at(-1).data.text.endsWith(`Number ${index}`)))
  const changed = await many(8, (index) => sdk.bot.fetch(ids[index]))
  changed.forEach((bot, index) => assert.equal(bot.name, `Changed ${index}`))
})

await check('deletes', async () => {
  await Promise.all(ids.map((id) => sdk.bot.delete(id)))
  assert.deepEqual((await sdk.bot.list()).items, [])
})
