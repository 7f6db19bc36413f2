// A partner acting as its child accounts, in both forms, each seeing its own resources only.
import assert from 'node:assert/strict'

import { check, client } from './checks.mjs'

const partner = client()
const one = client({ runAsUserId: 'user_child1' })
const two = client({ runAsChildUserEmail: 'two@example.com' })
const names = async (sdk) => (await sdk.bot.list()).items.map((item) => item.name)

await check('each makes a bot', async () => {
  const made = {}
  for (const [name, sdk] of Object.entries({ partner, one, two })) {
    made[name] = (await sdk.bot.create({ name: `Bot of ${name}` })).id
  }
  return made
})

// Twice, because the second answer may come from a cache, and must still be one's own.
for (const round of ['first', 'second']) {
  await check(`each sees its own, ${round}`, async () => {
    assert.deepEqual(await names(partner), ['Bot of partner'])
    assert.deepEqual(await names(one), ['Bot of one'])
    assert.deepEqual(await names(two), ['Bot of two'])
  })
}

await check('a child by its other name is the same child', async () => {
  assert.deepEqual(await names(client({ runAsUserId: 'user_child2' })), ['Bot of two'])
})

await check('an extended client keeps acting as the child', async () => {
  assert.deepEqual(await names(one.extend({ timezone: 'Europe/Sofia' })), ['Bot of one'])
})

await check('a change of one is seen by that one at once', async () => {
  const { items } = await one.bot.list()
  await one.bot.update(items[0].id, { name: 'Renamed' })
  assert.deepEqual(await names(one), ['Renamed'])
  assert.deepEqual(await names(two), ['Bot of two'])
})
